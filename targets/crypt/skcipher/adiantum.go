package skcipher

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/subtle"
	"encoding/binary"
	"math/bits"

	"golang.org/x/crypto/poly1305" //lint:ignore SA1019 a part of the cipher, not a MAC by itself
)

// adiantum is the length-preserving cipher of Crowley and Biggers (2018) for processors
// without AES instructions: it encrypts a sector as one block. A sector is a long left part
// and 16 bytes on the right. With the hash H of the vector and a left part,
//
//	middle = AES(right + H(left)); left ^= XChaCha(middle); right = middle - H(left)
//
// H is the sum of Poly1305 of the lengths and the vector, and NHPoly1305 of the left part.
type adiantum struct {
	rounds int
	key    [8]uint32 // of XChaCha
	block  cipher.Block
	header [32]byte // key of Poly1305; its second half is zero
	poly   [32]byte // key of Poly1305 in NHPoly1305; likewise
	nh     [nhKey]uint32
}

const (
	adiantumKey = 32 // bytes
	tweakSize   = 32 // bytes
	nhMessage   = 1024
	nhSum       = 32  // bytes
	nhKey       = 268 // words
)

func newAdiantum(key []byte, rounds int) (*adiantum, error) {
	a := &adiantum{rounds: rounds}
	for i := range a.key {
		a.key[i] = binary.LittleEndian.Uint32(key[i*4:])
	}
	var derived [32 + 16 + 16 + nhKey*4]byte
	defer clear(derived[:])
	a.stream(derived[:], &[24]byte{1})
	var err error
	a.block, err = aes.NewCipher(derived[:32])
	copy(a.header[:16], derived[32:])
	copy(a.poly[:16], derived[48:])
	for i := range a.nh {
		a.nh[i] = binary.LittleEndian.Uint32(derived[64+i*4:])
	}
	return a, err
}

func (a *adiantum) close() {
	clear(a.key[:])
	clear(a.header[:])
	clear(a.poly[:])
	clear(a.nh[:])
}

func (a *adiantum) encrypt(p []byte, s *scratch) {
	left, right := p[:len(p)-blockSize], p[len(p)-blockSize:]
	low, high := a.hash(left, s)
	add(right, low, high)
	a.block.Encrypt(right, right)
	a.xor(left, right)
	low, high = a.hash(left, s)
	sub(right, low, high)
}

func (a *adiantum) decrypt(p []byte, s *scratch) {
	left, right := p[:len(p)-blockSize], p[len(p)-blockSize:]
	low, high := a.hash(left, s)
	add(right, low, high)
	a.xor(left, right)
	a.block.Decrypt(right, right)
	low, high = a.hash(left, s)
	sub(right, low, high)
}

// xor encrypts or decrypts the left part.
func (a *adiantum) xor(left, middle []byte) {
	nonce := [24]byte{blockSize: 1}
	copy(nonce[:], middle)
	a.stream(left, &nonce)
}

// hash is the hash of the vector and the left part, a number of 128 bits.
func (a *adiantum) hash(left []byte, s *scratch) (low, high uint64) {
	clear(s.work[:blockSize+tweakSize])
	binary.LittleEndian.PutUint64(s.work[:], uint64(len(left))*8)
	copy(s.work[blockSize:], s.iv[:])
	sum := &s.block
	poly1305.Sum(sum, s.work[:blockSize+tweakSize], &a.header)
	low, high = binary.LittleEndian.Uint64(sum[:]), binary.LittleEndian.Uint64(sum[8:])
	n := 0
	for ; len(left) > 0; left = left[min(nhMessage, len(left)):] {
		a.nhSum(s.work[n:n+nhSum], left[:min(nhMessage, len(left))])
		n += nhSum
	}
	poly1305.Sum(sum, s.work[:n], &a.poly)
	add(sum[:], low, high)
	return binary.LittleEndian.Uint64(sum[:]), binary.LittleEndian.Uint64(sum[8:])
}

// nhSum computes the four sums of NH for a message of a multiple of 16 bytes.
func (a *adiantum) nhSum(sum, message []byte) {
	var sums [4]uint64
	for key := a.nh[:]; len(message) > 0; key, message = key[4:], message[16:] {
		m0, m1 := binary.LittleEndian.Uint32(message), binary.LittleEndian.Uint32(message[4:])
		m2, m3 := binary.LittleEndian.Uint32(message[8:]), binary.LittleEndian.Uint32(message[12:])
		for i := range sums {
			k := key[i*4 : i*4+4]
			sums[i] += uint64(m0+k[0])*uint64(m2+k[2]) + uint64(m1+k[1])*uint64(m3+k[3])
		}
	}
	for i, n := range sums {
		binary.LittleEndian.PutUint64(sum[i*8:], n)
	}
}

// add and sub change a number of 128 bits.
func add(p []byte, low, high uint64) {
	l, carry := bits.Add64(binary.LittleEndian.Uint64(p), low, 0)
	h, _ := bits.Add64(binary.LittleEndian.Uint64(p[8:]), high, carry)
	binary.LittleEndian.PutUint64(p, l)
	binary.LittleEndian.PutUint64(p[8:], h)
}

func sub(p []byte, low, high uint64) {
	l, borrow := bits.Sub64(binary.LittleEndian.Uint64(p), low, 0)
	h, _ := bits.Sub64(binary.LittleEndian.Uint64(p[8:]), high, borrow)
	binary.LittleEndian.PutUint64(p, l)
	binary.LittleEndian.PutUint64(p[8:], h)
}

// stream adds the key stream of XChaCha to p: ChaCha under a key that comes from the first 16
// bytes of the nonce, with the others as its nonce and a counter of 64 bits from 0.
func (a *adiantum) stream(p []byte, nonce *[24]byte) {
	state := chachaState(&a.key)
	for i := range 4 {
		state[12+i] = binary.LittleEndian.Uint32(nonce[i*4:])
	}
	mixed := state
	a.permute(&mixed)
	var key [8]uint32
	copy(key[:4], mixed[:4])
	copy(key[4:], mixed[12:])
	state = chachaState(&key)
	state[14], state[15] = binary.LittleEndian.Uint32(nonce[16:]), binary.LittleEndian.Uint32(nonce[20:])
	var block [64]byte
	for ; len(p) > 0; p = p[min(len(block), len(p)):] {
		mixed = state
		a.permute(&mixed)
		for i := range mixed {
			binary.LittleEndian.PutUint32(block[i*4:], mixed[i]+state[i])
		}
		n := min(len(block), len(p))
		subtle.XORBytes(p[:n], p[:n], block[:n])
		state[12]++ // a sector is shorter than 2^32 blocks
	}
}

// chachaState begins with "expand 32-byte k" and the key.
func chachaState(key *[8]uint32) (s [16]uint32) {
	s[0], s[1], s[2], s[3] = 0x61707865, 0x3320646e, 0x79622d32, 0x6b206574
	copy(s[4:], key[:])
	return s
}

func (a *adiantum) permute(s *[16]uint32) {
	for range a.rounds / 2 {
		quarter(s, 0, 4, 8, 12)
		quarter(s, 1, 5, 9, 13)
		quarter(s, 2, 6, 10, 14)
		quarter(s, 3, 7, 11, 15)
		quarter(s, 0, 5, 10, 15)
		quarter(s, 1, 6, 11, 12)
		quarter(s, 2, 7, 8, 13)
		quarter(s, 3, 4, 9, 14)
	}
}

func quarter(s *[16]uint32, i, j, k, l int) {
	a, b, c, d := s[i], s[j], s[k], s[l]
	a += b
	d = bits.RotateLeft32(d^a, 16)
	c += d
	b = bits.RotateLeft32(b^c, 12)
	a += b
	d = bits.RotateLeft32(d^a, 8)
	c += d
	b = bits.RotateLeft32(b^c, 7)
	s[i], s[j], s[k], s[l] = a, b, c, d
}
