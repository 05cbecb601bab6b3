package skcipher

import (
	"encoding/binary"
	"math/bits"

	"golang.org/x/sys/cpu"
)

// aesXTS is xts of AES by the processor's instructions for it, eight blocks at a time:
// crypto/aes, which takes one, leaves most of what the processor can do side by side idle.
type aesXTS struct {
	xts     // for sectors that are no strides
	rounds  int
	tweaks  roundKeys
	forward roundKeys
	inverse roundKeys
}

// roundKeys are those of AES; for decryption, those of the equivalent inverse cipher.
type roundKeys [maxRounds + 1][blockSize]byte

const (
	maxRounds = 14
	stride    = 8 * blockSize // what the assembly handles at a time
)

// newAESXTS makes the mode from the parts of its key, or returns nil where the processor has no
// instructions for AES. x is the same mode without them.
func newAESXTS(x xts, data, tweak []byte) mode {
	if !cpu.X86.HasAES {
		return nil
	}
	a := &aesXTS{xts: x, rounds: len(data)/4 + 6}
	a.forward.expand(data, a.rounds)
	a.tweaks.expand(tweak, a.rounds)
	a.inverse.invert(&a.forward, a.rounds)
	return a
}

// expand makes round keys from a key (FIPS 197, 5.2).
func (k *roundKeys) expand(key []byte, rounds int) {
	var w [4 * (maxRounds + 1)]uint32
	defer clear(w[:])
	n := len(key) / 4
	for i := range n {
		w[i] = binary.LittleEndian.Uint32(key[4*i:])
	}
	power := uint32(1) // of x in GF(2^8)
	for i := n; i < 4*(rounds+1); i++ {
		t := w[i-1]
		switch {
		case i%n == 0:
			t = bits.RotateLeft32(subWord(t), -8) ^ power
			power = power<<1 ^ power>>7*0x11b
		case n > 6 && i%n == 4:
			t = subWord(t)
		}
		w[i] = w[i-n] ^ t
	}
	for i, word := range w[:4*(rounds+1)] {
		binary.LittleEndian.PutUint32(k[i/4][i%4*4:], word)
	}
}

// invert makes the round keys that decrypt (FIPS 197, 5.3.5).
func (k *roundKeys) invert(forward *roundKeys, rounds int) {
	for i := range rounds + 1 {
		k[i] = forward[rounds-i]
		if i > 0 && i < rounds {
			inverseMixColumns(&k[i])
		}
	}
}

func (a *aesXTS) encrypt(p []byte, s *scratch) {
	if len(p)%stride != 0 {
		a.xts.encrypt(p, s)
	} else if len(p) > 0 {
		encryptXTS(&a.tweaks, &a.forward, a.rounds, &s.iv, &p[0], len(p)/stride)
	}
}

func (a *aesXTS) decrypt(p []byte, s *scratch) {
	if len(p)%stride != 0 {
		a.xts.decrypt(p, s)
	} else if len(p) > 0 {
		decryptXTS(&a.tweaks, &a.inverse, a.rounds, &s.iv, &p[0], len(p)/stride)
	}
}

// encryptXTS encrypts strides, at least one, in place.
//
//go:noescape
func encryptXTS(tweaks, keys *roundKeys, rounds int, iv *[blockSize]byte, p *byte, strides int)

// decryptXTS undoes encryptXTS.
//
//go:noescape
func decryptXTS(tweaks, keys *roundKeys, rounds int, iv *[blockSize]byte, p *byte, strides int)

// subWord applies AES's S-box to each byte of w.
//
//go:noescape
func subWord(w uint32) uint32

//go:noescape
func inverseMixColumns(key *[blockSize]byte)
