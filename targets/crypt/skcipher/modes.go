package skcipher

import (
	"crypto/cipher"
	"crypto/subtle"
	"encoding/binary"
)

// xts is IEEE 1619.
type xts struct{ data, tweak cipher.Block }

func (x *xts) encrypt(p []byte, s *scratch) {
	tweaks := x.tweaks(len(p), s)
	subtle.XORBytes(p, p, tweaks)
	for b := p; len(b) >= blockSize; b = b[blockSize:] {
		x.data.Encrypt(b, b)
	}
	subtle.XORBytes(p, p, tweaks)
}

func (x *xts) decrypt(p []byte, s *scratch) {
	tweaks := x.tweaks(len(p), s)
	subtle.XORBytes(p, p, tweaks)
	for b := p; len(b) >= blockSize; b = b[blockSize:] {
		x.data.Decrypt(b, b)
	}
	subtle.XORBytes(p, p, tweaks)
}

func (x *xts) close() {}

// tweaks are those of n bytes: the encrypted vector, then each time twice the one
// before in GF(2^128), modulo x^128 + x^7 + x^2 + x + 1.
func (x *xts) tweaks(n int, s *scratch) []byte {
	x.tweak.Encrypt(s.iv[:], s.iv[:])
	low, high := binary.LittleEndian.Uint64(s.iv[:]), binary.LittleEndian.Uint64(s.iv[8:])
	all := s.work[:n]
	for t := all; len(t) >= blockSize; t = t[blockSize:] {
		binary.LittleEndian.PutUint64(t, low)
		binary.LittleEndian.PutUint64(t[8:], high)
		carry := -(high >> 63) & 0x87
		low, high = low<<1^carry, high<<1|low>>63
	}
	return all
}

// cbc is cipher block chaining.
type cbc struct{ cipher.Block }

func (c *cbc) encrypt(p []byte, s *scratch) {
	before := s.iv[:]
	for b := p; len(b) >= blockSize; b = b[blockSize:] {
		subtle.XORBytes(b, b[:blockSize], before)
		c.Encrypt(b, b)
		before = b[:blockSize]
	}
}

func (c *cbc) decrypt(p []byte, s *scratch) {
	before := s.work[:len(p)]
	copy(before, s.iv[:])
	copy(before[blockSize:], p)
	for b := p; len(b) >= blockSize; b = b[blockSize:] {
		c.Decrypt(b, b)
	}
	subtle.XORBytes(p, p, before)
}

func (c *cbc) close() {}

// ecb has no vector.
type ecb struct{ cipher.Block }

func (e *ecb) encrypt(p []byte, _ *scratch) {
	for ; len(p) >= blockSize; p = p[blockSize:] {
		e.Encrypt(p, p)
	}
}

func (e *ecb) decrypt(p []byte, _ *scratch) {
	for ; len(p) >= blockSize; p = p[blockSize:] {
		e.Decrypt(p, p)
	}
}

func (e *ecb) close() {}

// null changes nothing.
type null struct{}

func (null) encrypt([]byte, *scratch) {}
func (null) decrypt([]byte, *scratch) {}
func (null) close()                   {}
