package reedsolomon

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"testing"
)

// word returns a random valid word.
func word(rng *rand.Rand, c *Code) []byte {
	w := make([]byte, WordSize)
	for i := range c.Data() {
		w[i] = byte(rng.Uint32())
		c.Add(w[c.Data():], w[i])
	}
	return w
}

// TestCorrects corrupts words at known and unknown positions, no more than can be
// corrected.
func TestCorrects(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	for roots := 2; roots <= MaxRoots; roots++ {
		c := New(roots)
		for range 200 {
			valid := word(rng, c)
			broken := bytes.Clone(valid)
			known := rng.IntN(roots + 1)
			unknown := rng.IntN((roots-known)/2 + 1)
			positions := rng.Perm(WordSize)[:known+unknown]
			wrong := 0
			for i, p := range positions {
				by := byte(rng.IntN(256))
				if i >= known && by == 0 {
					by = 1
				}
				broken[p] ^= by
				if by != 0 {
					wrong++
				}
			}
			n, err := c.Decode(broken, positions[:known])
			if err != nil || n != wrong || !bytes.Equal(broken, valid) {
				t.Fatalf("%d roots, %d known and %d unknown positions: %d corrected, want %d, %v", roots, known, unknown, n, wrong, err)
			}
		}
	}
}

// TestRefuses checks that a word with too many errors is either refused and unchanged, or
// decoded to another valid word.
func TestRefuses(t *testing.T) {
	rng := rand.New(rand.NewPCG(2, 1))
	refused := 0
	for i := range 2000 {
		c := New(2 + i%(MaxRoots-1))
		broken := word(rng, c)
		for _, p := range rng.Perm(WordSize)[:c.Roots()/2+1+rng.IntN(20)] {
			broken[p] ^= byte(1 + rng.IntN(255))
		}
		before := bytes.Clone(broken)
		if _, err := c.Decode(broken, nil); errors.Is(err, ErrTooManyErrors) {
			refused++
			if !bytes.Equal(before, broken) {
				t.Fatal("a refused word was changed")
			}
			continue
		}
		var s poly
		if !c.syndromes(broken, &s) {
			t.Fatalf("%d roots: decoded to an invalid word", c.Roots())
		}
	}
	if refused < 1000 {
		t.Errorf("%d of 2000 words refused, want at least 1000", refused)
	}
	if _, err := New(2).Decode(append([]byte{1}, make([]byte, WordSize-1)...), []int{1, 2, 3}); !errors.Is(err, ErrTooManyErrors) {
		t.Errorf("more erasures than parity: %v", err)
	}
}

func BenchmarkEncode(b *testing.B) {
	c := New(2)
	var parity [2]byte
	b.SetBytes(1 << 16)
	for range b.N {
		for i := range 1 << 16 {
			c.Add(parity[:], byte(i))
		}
	}
}
