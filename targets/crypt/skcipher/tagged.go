package skcipher

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha1" // disks that use it exist
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"encoding/binary"
	"hash"
	"sync"
	"syscall"

	"golang.org/x/crypto/chacha20poly1305"

	"udm/dm"
)

// tagged is what sectors with tags need: something that authenticates, vectors that are
// stored, or both.
type tagged struct {
	aead   cipher.AEAD  // encrypts and authenticates; nil: a mode encrypts
	macs   *sync.Pool   // of hash.Hash, which authenticate; nil: none, or aead does it
	tag    int          // bytes of the tag
	iv     int          // bytes of a vector
	stored int          // bytes of a vector that is stored behind the tag, else 0
	random func([]byte) // makes vectors that are stored
}

var macHashes = map[string]func() hash.Hash{"hmac(sha1)": sha1.New, "hmac(sha256)": sha256.New, "hmac(sha512)": sha512.New}

// MACSize is the size of the MAC and of its key in bytes, 0 without one.
func (s *Spec) MACSize() int {
	h := macHashes[s.MAC]
	if h == nil {
		return 0
	}
	return h().Size()
}

// IVSize is the length of a vector in bytes.
func (s *Spec) IVSize() int {
	if s.Mode == "gcm" || s.Mode == "rfc7539" {
		return 12
	}
	return blockSize
}

// Tagged reports whether sectors have tags.
func (s *Spec) Tagged() bool { return s.AEAD || s.IV == randomIV }

// FullTag is the TagSize for a whole tag and, if IV is "random", a vector.
func (s *Spec) FullTag() (bytes int) {
	if s.IV == randomIV {
		bytes = s.IVSize()
	}
	switch {
	case s.MAC != "":
		bytes += s.MACSize()
	case s.AEAD:
		bytes += chacha20poly1305.Overhead // that of gcm as well
	}
	return bytes
}

// newTagged is nil without tags. It cuts the key of the MAC from the end of key.
func (s *Spec) newTagged(key *[]byte) (t *tagged, err error) {
	if !s.Tagged() {
		return nil, nil
	}
	t = &tagged{iv: s.IVSize(), tag: s.TagSize, random: s.Random}
	if s.IV == randomIV {
		t.stored = t.iv
		t.tag -= t.iv
	}
	switch {
	case t.tag < 0 || !s.AEAD && t.tag != 0:
		return nil, dm.Errorf(syscall.EINVAL, "Not enough space for integrity tag in the profile.")
	case !s.AEAD:
		return t, nil
	case s.MAC != "":
		return t, t.setMAC(s, key)
	}
	return t, t.setAEAD(s, *key)
}

func (t *tagged) setMAC(s *Spec, key *[]byte) error {
	size := s.MACSize()
	if len(*key) <= size {
		return wrongSize(len(*key))
	}
	if t.tag > size {
		return noTagSize()
	}
	own := append([]byte(nil), (*key)[len(*key)-size:]...) // hash keeps it
	*key = (*key)[:len(*key)-size]
	h := macHashes[s.MAC]
	t.macs = &sync.Pool{New: func() any { return hmac.New(h, own) }}
	return nil
}

func noTagSize() error {
	return dm.Errorf(syscall.EINVAL, "Integrity AEAD auth tag size is not supported.")
}

func (t *tagged) setAEAD(s *Spec, key []byte) (err error) {
	if s.Mode == "rfc7539" {
		if len(key) != chacha20poly1305.KeySize {
			return wrongSize(len(key))
		}
		if t.tag != chacha20poly1305.Overhead {
			return noTagSize()
		}
		t.aead, err = chacha20poly1305.New(key)
		return err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return wrongSize(len(key))
	}
	if t.aead, err = cipher.NewGCMWithTagSize(block, t.tag); err != nil {
		return noTagSize()
	}
	return nil
}

// sealsItself reports whether no mode is needed.
func (t *tagged) sealsItself() bool { return t != nil && t.aead != nil }

// Seal is Encrypt for sectors with tags, which it fills. offset is the number of the first
// sector counted from the start of the target, which is authenticated.
func (c *Sectors) Seal(p, tags []byte, sector, offset uint64) {
	s := scratches.Get().(*scratch)
	for size := c.tagged.size(); len(p) > 0; p, tags = p[c.size:], tags[size:] {
		c.seal(s, p[:c.size:c.size], tags[:size], sector, offset)
		sector, offset = sector+c.step, offset+c.step
	}
	scratches.Put(s)
}

// Open is Decrypt for sectors with tags. It reports whether all sectors are authentic; if not,
// p holds nothing of use.
func (c *Sectors) Open(p, tags []byte, sector, offset uint64) bool {
	s := scratches.Get().(*scratch)
	defer scratches.Put(s)
	for size := c.tagged.size(); len(p) > 0; p, tags = p[c.size:], tags[size:] {
		if !c.open(s, p[:c.size:c.size], tags[:size], sector, offset) {
			return false
		}
		sector, offset = sector+c.step, offset+c.step
	}
	return true
}

// size is the number of bytes beside each sector.
func (t *tagged) size() int { return t.tag + t.stored }

func (c *Sectors) seal(s *scratch, p, tag []byte, sector, offset uint64) {
	t := c.tagged
	if t.stored > 0 {
		t.random(tag[t.tag:])
		copy(s.iv[:], tag[t.tag:])
	} else {
		c.makeVector(s, sector)
	}
	aad := t.aad(s, offset)
	if t.aead != nil {
		sealed := t.aead.Seal(s.work[:0], s.iv[:t.iv], p, aad)
		copy(p, sealed)
		copy(tag[:t.tag], sealed[len(p):])
		return
	}
	c.modeOf(sector).encrypt(p, s)
	if t.macs != nil {
		copy(tag[:t.tag], t.mac(s, aad, p))
	}
}

func (c *Sectors) open(s *scratch, p, tag []byte, sector, offset uint64) bool {
	t := c.tagged
	if t.stored > 0 {
		copy(s.iv[:], tag[t.tag:])
	} else {
		c.makeVector(s, sector)
	}
	aad := t.aad(s, offset)
	if t.aead != nil {
		n := copy(s.work[:], p)
		n += copy(s.work[n:], tag[:t.tag])
		_, err := t.aead.Open(s.work[:0], s.iv[:t.iv], s.work[:n], aad)
		copy(p, s.work[:len(p)])
		return err == nil
	}
	if t.macs != nil && subtle.ConstantTimeCompare(t.mac(s, aad, p), tag[:t.tag]) != 1 {
		return false
	}
	c.modeOf(sector).decrypt(p, s)
	return true
}

// aad is what is authenticated beside the data: the sector's number and its vector.
func (t *tagged) aad(s *scratch, offset uint64) []byte {
	binary.LittleEndian.PutUint64(s.aad[:], offset)
	return s.aad[:8+copy(s.aad[8:], s.iv[:t.iv])]
}

// mac authenticates an encrypted sector.
func (t *tagged) mac(s *scratch, aad, p []byte) []byte {
	h := t.macs.Get().(hash.Hash)
	h.Reset()
	h.Write(aad)
	h.Write(p)
	sum := h.Sum(s.sum[:0])
	t.macs.Put(h)
	return sum[:t.tag]
}
