package luks

import (
	"crypto/subtle"
	"errors"
	"fmt"
	"slices"

	"udm/targets/crypt/skcipher"
)

// Header is the content of a header of either version.
type Header struct {
	Version   int
	UUID      string
	Label     string // version 2
	Subsystem string // version 2
	SeqID     uint64 // version 2: increases with each change
	Segment   Segment
	Slots     []Slot // in use, ascending
	Digest    Digest
	Tokens    map[int]string // version 2: their JSON
	Flags     []string       // version 2: how to activate it
	// Damaged says what is wrong with one copy of the header; "": both are valid. The
	// content comes from the other copy.
	Damaged string
}

// Segment describes the encrypted data.
type Segment struct {
	Encryption string // as in tables of crypt
	// Integrity says how sectors are authenticated (version 2): by a MAC such as
	// "hmac(sha256)", whose key follows that of the cipher; "aead" and "poly1305" by
	// the cipher itself; "none" stores only vectors; "" stores nothing.
	Integrity  string
	KeySize    int    // bytes
	Offset     uint64 // bytes, on the data device
	Size       uint64 // bytes; 0: to the end of the device
	IVOffset   uint64 // sectors of 512 bytes
	SectorSize int    // bytes
}

// Slot is a key slot: a volume key that a passphrase opens.
type Slot struct {
	ID      int
	KeySize int // bytes of the volume key
	KDF     KDF
	Stripes int
	Hash    string // of the stripes
	Area    Area
	// Priority is 0 for a slot that is used only on request, 2 for one that is tried
	// first, else 1.
	Priority int
}

// Area is the place of a slot's key material.
type Area struct {
	Offset     uint64 // bytes
	Size       uint64 // bytes
	Encryption string
	KeySize    int // bytes
}

// Digest verifies a volume key.
type Digest struct {
	Hash       string
	Iterations uint64
	Salt       []byte
	Digest     []byte
}

const (
	maxKeySize  = 512     // bytes
	maxMaterial = 8 << 20 // bytes
	maxSlots    = 32
)

// materialSize is the size of the stripes in bytes, in whole sectors.
func (s *Slot) materialSize() uint64 { return roundUp(uint64(s.KeySize)*uint64(s.Stripes), 512) }

// check checks a slot as far as possible without a passphrase.
func (s *Slot) check() error {
	switch {
	case s.KeySize <= 0 || s.KeySize > maxKeySize || s.Area.KeySize <= 0 || s.Area.KeySize > maxKeySize:
		return fmt.Errorf("key slot %d has keys of %d and %d bytes; the header is damaged", s.ID, s.KeySize, s.Area.KeySize)
	case s.Stripes <= 0 || s.Stripes > maxMaterial || s.materialSize() > maxMaterial || s.materialSize() > s.Area.Size:
		return fmt.Errorf("the %d stripes of key slot %d do not fit into its area; the header is damaged", s.Stripes, s.ID)
	}
	_, err := findHash(s.Hash)
	return err
}

// cipher returns the cipher of the area with a key. It must be closed.
func (s *Slot) cipher(key []byte) (*skcipher.Sectors, error) {
	spec, err := skcipher.Parse(s.Area.Encryption)
	if err == nil && spec.Tagged() {
		err = fmt.Errorf("the cipher %q of key slot %d stores tags, for which there is no place; the header is damaged", s.Area.Encryption, s.ID)
	}
	if err != nil {
		return nil, err
	}
	return spec.New(key, 512, false)
}

// errWrongKey is the error for a wrong passphrase.
var errWrongKey = errors.New("no key slot opens with this passphrase")

// ErrWrongKey reports whether err means a wrong passphrase.
func ErrWrongKey(err error) bool { return errors.Is(err, errWrongKey) }

// open returns the volume key in a slot, after checking it against the digest.
func (s *Slot) open(st store, passphrase []byte, d *Digest, l Limits) (key []byte, err error) {
	if err := s.check(); err != nil {
		return nil, err
	}
	derived, err := s.KDF.derive(passphrase, s.Area.KeySize, l)
	if err != nil {
		return nil, err
	}
	defer clear(derived)
	c, err := s.cipher(derived)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	material, err := st.read(s.Area.Offset, s.materialSize())
	if err != nil {
		return nil, err
	}
	defer clear(material)
	c.Decrypt(material, 0)
	h, err := findHash(s.Hash)
	if err != nil {
		return nil, err
	}
	key = merge(material, s.KeySize, s.Stripes, h)
	right, err := d.verify(key, l)
	if !right || err != nil {
		clear(key)
		return nil, errors.Join(err, errWrongKey)
	}
	return key, nil
}

// fill stores key in the slot's area under a passphrase.
func (s *Slot) fill(st store, passphrase, key []byte, l Limits, random func(int) ([]byte, error)) error {
	if err := s.check(); err != nil {
		return err
	}
	derived, err := s.KDF.derive(passphrase, s.Area.KeySize, l)
	if err != nil {
		return err
	}
	defer clear(derived)
	c, err := s.cipher(derived)
	if err != nil {
		return err
	}
	defer c.Close()
	h, err := findHash(s.Hash)
	if err != nil {
		return err
	}
	noise, err := random(s.KeySize * s.Stripes)
	if err != nil {
		return err
	}
	material := make([]byte, s.materialSize())
	defer clear(material)
	copy(material, split(key, s.Stripes, h, noise))
	c.Encrypt(material, 0)
	return st.write(s.Area.Offset, material)
}

// derive computes the digest of a key.
func (d *Digest) derive(key []byte, size int, l Limits) ([]byte, error) {
	k := KDF{Type: "pbkdf2", Hash: d.Hash, Iterations: d.Iterations, Salt: d.Salt}
	return k.derive(key, size, l)
}

func (d *Digest) verify(key []byte, l Limits) (bool, error) {
	if len(d.Digest) < 16 || len(d.Digest) > 64 {
		return false, fmt.Errorf("a digest of %d bytes; the header is damaged", len(d.Digest))
	}
	sum, err := d.derive(key, len(d.Digest), l)
	return err == nil && subtle.ConstantTimeCompare(sum, d.Digest) == 1, err
}

// slot returns a slot in use.
func (h *Header) slot(id int) (*Slot, error) {
	i := slices.IndexFunc(h.Slots, func(s Slot) bool { return s.ID == id })
	if i < 0 {
		return nil, fmt.Errorf("key slot %d is not in use", id)
	}
	return &h.Slots[i], nil
}
