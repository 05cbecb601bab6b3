package skcipher

import (
	"encoding/binary"
	"math/bits"

	"golang.org/x/sys/cpu"

	"udm/internal/secret"
)

// aesXTS is xts of AES by the processor's instructions for it, eight blocks at a time, or sixteen
// where it has those for four in a register: crypto/aes, which takes one block, leaves most of
// what the processor can do side by side idle.
type aesXTS struct {
	wide    bool // sixteen blocks
	rounds  int
	tweaks  *roundKeys
	forward *roundKeys
	inverse *roundKeys
	memory  *secret.Bytes // where they are
}

// roundKeys are those of AES; for decryption, those of the equivalent inverse cipher.
type roundKeys [(maxRounds + 1) * blockSize]byte

const (
	maxRounds  = 14
	stride     = 8 * blockSize // what the assembly handles at a time
	wideStride = 2 * stride
)

// hasAESXTS reports whether the processor has the instructions.
func hasAESXTS() bool { return cpu.X86.HasAES }

// hasWide reports whether it has those for four blocks in a register.
func hasWide() bool {
	return hasAESXTS() && cpu.X86.HasAVX512VAES && cpu.X86.HasAVX512VPCLMULQDQ && cpu.X86.HasAVX512BW
}

// newAESXTS makes the mode from the parts of its key, of the same size, or returns nil where the
// processor has no instructions for AES.
func newAESXTS(data, tweak []byte) (mode, error) {
	if !hasAESXTS() {
		return nil, nil
	}
	if n := len(data); n != 16 && n != 24 && n != 32 {
		return nil, wrongSize(2 * n)
	}
	const size = len(roundKeys{})
	memory := secret.Take(make([]byte, 3*size))
	m := memory.Bytes()
	a := &aesXTS{hasWide(), len(data)/4 + 6, (*roundKeys)(m), (*roundKeys)(m[size:]), (*roundKeys)(m[2*size:]), memory}
	a.forward.expand(data, a.rounds)
	a.tweaks.expand(tweak, a.rounds)
	a.inverse.invert(a.forward, a.rounds)
	return a, nil
}

func (a *aesXTS) close() {
	a.memory.Close()
	a.tweaks, a.forward, a.inverse = nil, nil, nil
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
		binary.LittleEndian.PutUint32(k[4*i:], word)
	}
}

// invert makes the round keys that decrypt (FIPS 197, 5.3.5).
func (k *roundKeys) invert(forward *roundKeys, rounds int) {
	for i := range rounds + 1 {
		copy(k.round(i)[:], forward.round(rounds - i)[:])
		if i > 0 && i < rounds {
			inverseMixColumns(k.round(i))
		}
	}
}

func (k *roundKeys) round(i int) *[blockSize]byte { return (*[blockSize]byte)(k[i*blockSize:]) }

func (a *aesXTS) encrypt(p []byte, s *scratch) {
	if a.takesWide(p) {
		encryptWide(a.tweaks, a.forward, a.rounds, &s.iv, &p[0], len(p)/wideStride)
		return
	}
	whole, rest := strides(p, s)
	if len(whole) > 0 {
		encryptXTS(a.tweaks, a.forward, a.rounds, &s.iv, &whole[0], len(whole)/stride)
	}
	copy(rest, whole)
}

func (a *aesXTS) decrypt(p []byte, s *scratch) {
	if a.takesWide(p) {
		decryptWide(a.tweaks, a.inverse, a.rounds, &s.iv, &p[0], len(p)/wideStride)
		return
	}
	whole, rest := strides(p, s)
	if len(whole) > 0 {
		decryptXTS(a.tweaks, a.inverse, a.rounds, &s.iv, &whole[0], len(whole)/stride)
	}
	copy(rest, whole)
}

// takesWide reports whether p is whole wide strides, as sectors are.
func (a *aesXTS) takesWide(p []byte) bool {
	return a.wide && len(p) > 0 && len(p)%wideStride == 0
}

// strides returns p if it is whole strides. Else it returns a longer copy, and p for
// what becomes of the copy.
func strides(p []byte, s *scratch) (whole, rest []byte) {
	if len(p)%stride == 0 {
		return p, nil
	}
	whole = s.work[:(len(p)+stride-1)/stride*stride]
	copy(whole, p)
	return whole, p
}

// encryptXTS encrypts strides, at least one, in place.
//
//go:noescape
func encryptXTS(tweaks, keys *roundKeys, rounds int, iv *[blockSize]byte, p *byte, strides int)

// decryptXTS undoes encryptXTS.
//
//go:noescape
func decryptXTS(tweaks, keys *roundKeys, rounds int, iv *[blockSize]byte, p *byte, strides int)

// encryptWide is encryptXTS of wide strides.
//
//go:noescape
func encryptWide(tweaks, keys *roundKeys, rounds int, iv *[blockSize]byte, p *byte, strides int)

// decryptWide undoes encryptWide.
//
//go:noescape
func decryptWide(tweaks, keys *roundKeys, rounds int, iv *[blockSize]byte, p *byte, strides int)

// subWord applies AES's S-box to each byte of w.
//
//go:noescape
func subWord(w uint32) uint32

//go:noescape
func inverseMixColumns(key *[blockSize]byte)
