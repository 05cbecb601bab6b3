package skcipher

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/binary"
	"sync"
	"syscall"

	"golang.org/x/crypto/twofish" //lint:ignore SA1019 disks that are encrypted with it exist

	"udm/dm"
)

const (
	blockSize  = 16
	maxSector  = 4096 // bytes
	nullCipher = "cipher_null"

	adiantumMode = "adiantum"
)

// ciphers make a block cipher from a key; the null cipher has none.
var ciphers = map[string]func(key []byte) (cipher.Block, error){
	"aes":      aes.NewCipher,
	"twofish":  func(key []byte) (cipher.Block, error) { return twofish.NewCipher(key) },
	nullCipher: nil,
}

// wide are the ciphers of mode adiantum, and the rounds of their streams.
var wide = map[string]int{"xchacha12,aes": 12, "xchacha20,aes": 20}

// Sectors encrypts and decrypts sectors under a key. It is safe for concurrent use
// and allocates nothing.
type Sectors struct {
	modes  []mode // a power of two; sectors take turns
	vector vector
	salts  []cipher.Block // of essiv, one for each mode
	size   int            // bytes in a sector
	tagged *tagged        // nil: sectors have no tags
	step   uint64         // 512-byte sectors in a sector
	shift  uint           // what a sector's number is divided by for its vector
}

// mode is a block cipher under one key at work on a whole sector in place.
type mode interface {
	encrypt(p []byte, s *scratch)
	decrypt(p []byte, s *scratch)
	close() // overwrites what it has made of the key, where that can be done
}

// scratch is the memory of one call: iv is the vector of the sector, which a mode
// may change.
type scratch struct {
	iv    [blockSize]byte
	work  [maxSector + blockSize]byte // a sector, and a tag behind it
	aad   [8 + blockSize]byte
	block [blockSize]byte
	sum   [sha512.Size]byte
}

var scratches = sync.Pool{New: func() any { return new(scratch) }}

// New makes the cipher for sectors of so many bytes, 512 to 4096, with a key. With
// large the vectors count such sectors, else they count 512 bytes. It must be closed.
func (s Spec) New(key []byte, sectorSize int, large bool) (_ *Sectors, err error) {
	c := &Sectors{vector: vectors[s.IV], size: sectorSize, step: uint64(sectorSize / 512)}
	for n := c.step; large && n > 1; n /= 2 {
		c.shift++
	}
	defer func() {
		if err != nil {
			c.Close()
		}
	}()
	if c.tagged, err = s.newTagged(&key); err != nil || c.tagged.sealsItself() {
		return c, err
	}
	part := len(key) / s.Keys
	for i := range s.Keys {
		k := key[i*part : (i+1)*part]
		m, err := s.newMode(k)
		if err != nil {
			return nil, err
		}
		c.modes = append(c.modes, m)
		if s.IV == "essiv" {
			salt, err := s.newSalt(k)
			if err != nil {
				return nil, err
			}
			c.salts = append(c.salts, salt)
		}
	}
	return c, nil
}

// CheckKey says why a key is none of the cipher's.
func (s Spec) CheckKey(key []byte) error {
	c, err := s.New(key, 512, false)
	if err == nil {
		c.Close()
	}
	return err
}

// Close overwrites what has been made of the key, as far as it is not in memory of Go's library.
// Nothing may be encrypted or decrypted from then on.
func (c *Sectors) Close() {
	for _, m := range c.modes {
		m.close()
	}
}

func (s Spec) newMode(key []byte) (mode, error) {
	if s.Cipher == nullCipher {
		if len(key) > 0 {
			return nil, dm.Errorf(syscall.EINVAL, "the null cipher has no key; use -")
		}
		return null{}, nil
	}
	if s.Mode == adiantumMode {
		if len(key) != adiantumKey {
			return nil, wrongSize(len(key))
		}
		return newAdiantum(key, wide[s.Cipher])
	}
	if s.Mode == "xts" {
		return s.newXTS(key)
	}
	b, err := s.block(key)
	if err != nil {
		return nil, wrongSize(len(key))
	}
	if s.Mode == "cbc" {
		return &cbc{b}, nil
	}
	return &ecb{b}, nil
}

// newXTS makes the mode from a key of two halves.
func (s Spec) newXTS(key []byte) (mode, error) {
	if len(key)%2 != 0 {
		return nil, wrongSize(len(key))
	}
	first, second := key[:len(key)/2], key[len(key)/2:]
	if s.Cipher == "aes" {
		if m, err := newAESXTS(first, second); m != nil || err != nil {
			return m, err
		}
	}
	data, err := s.block(first)
	if err != nil {
		return nil, wrongSize(len(key))
	}
	tweak, err := s.block(second)
	return &xts{data, tweak}, err
}

// block is the block cipher under a key.
func (s Spec) block(key []byte) (cipher.Block, error) { return ciphers[s.Cipher](key) }

func (s Spec) newSalt(key []byte) (cipher.Block, error) {
	sum := sha256.Sum256(key)
	defer clear(sum[:])
	return s.block(sum[:])
}

func wrongSize(bytes int) error {
	return dm.Errorf(syscall.EINVAL, "the cipher has no keys of %d bits; use one of another size", bytes*8)
}

// Encrypt encrypts p, whole sectors of which the first has this number, counted in
// units of 512 bytes, in place.
func (c *Sectors) Encrypt(p []byte, sector uint64) {
	s := scratches.Get().(*scratch)
	for ; len(p) > 0; p, sector = p[c.size:], sector+c.step {
		c.begin(s, sector).encrypt(p[:c.size:c.size], s)
	}
	scratches.Put(s)
}

// Decrypt undoes Encrypt.
func (c *Sectors) Decrypt(p []byte, sector uint64) {
	s := scratches.Get().(*scratch)
	for ; len(p) > 0; p, sector = p[c.size:], sector+c.step {
		c.begin(s, sector).decrypt(p[:c.size:c.size], s)
	}
	scratches.Put(s)
}

// begin makes a sector's vector in s and returns the mode with its key.
func (c *Sectors) begin(s *scratch, sector uint64) mode {
	c.makeVector(s, sector)
	return c.modeOf(sector)
}

// turn is the number of the key whose turn it is.
func (c *Sectors) turn(sector uint64) int { return int(sector & uint64(len(c.modes)-1)) }

func (c *Sectors) modeOf(sector uint64) mode { return c.modes[c.turn(sector)] }

func (c *Sectors) makeVector(s *scratch, sector uint64) {
	if c.vector != nil {
		clear(s.iv[:])
		c.vector(c, s, c.turn(sector), sector>>c.shift)
	}
}

// vector makes the vector of sector number n in s.iv, which is zero, for key i.
type vector func(c *Sectors, s *scratch, i int, n uint64)

var vectors = map[string]vector{
	"null":      func(*Sectors, *scratch, int, uint64) {},
	"plain":     func(_ *Sectors, s *scratch, _ int, n uint64) { binary.LittleEndian.PutUint32(s.iv[:], uint32(n)) },
	"plain64":   plain64,
	"plain64be": func(_ *Sectors, s *scratch, _ int, n uint64) { binary.BigEndian.PutUint64(s.iv[8:], n) },
	"benbi":     func(_ *Sectors, s *scratch, _ int, n uint64) { binary.BigEndian.PutUint64(s.iv[8:], n<<5+1) },
	"essiv":     essiv,
	"eboiv":     eboiv,
}

func plain64(_ *Sectors, s *scratch, _ int, n uint64) { binary.LittleEndian.PutUint64(s.iv[:], n) }

func essiv(c *Sectors, s *scratch, i int, n uint64) {
	plain64(c, s, i, n)
	c.salts[i].Encrypt(s.iv[:], s.iv[:])
}

func eboiv(c *Sectors, s *scratch, i int, n uint64) {
	plain64(c, s, i, n*uint64(c.size))
	zero := s.work[maxSector-blockSize : maxSector] // what one block needs of work is in front
	clear(zero)
	c.modes[i].encrypt(zero, s)
	copy(s.iv[:], zero)
}
