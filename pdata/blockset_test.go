package pdata

import (
	"math/rand/v2"
	"testing"
)

// TestBlockSetModel puts random runs into a set and takes others out. Some lie
// far apart, and many cross the bounds of words and parts.
func TestBlockSetModel(t *testing.T) {
	const near = 3 * 64 * setWords
	rng := rand.New(rand.NewPCG(*seed, 20))
	bases := []uint64{0, 1<<40 - near/2, 1<<63 - near/2}
	var s BlockSet
	model := map[uint64]bool{}
	for i := range scaled(3000) {
		begin := bases[rng.IntN(len(bases))] + rng.Uint64N(near)
		end := begin + rng.Uint64N([]uint64{2, 70, 2 * 64 * setWords}[rng.IntN(3)])
		add := rng.IntN(2) == 0
		if add {
			s.Add(begin, end)
		} else {
			s.Remove(begin, end)
		}
		for nr := begin; nr < end; nr++ {
			if add {
				model[nr] = true
			} else {
				delete(model, nr)
			}
		}
		if s.Len() != uint64(len(model)) {
			t.Fatalf("op %d: %d blocks, want %d", i, s.Len(), len(model))
		}
		for range 20 {
			nr := bases[rng.IntN(len(bases))] + rng.Uint64N(2*near)
			if s.Has(nr) != model[nr] {
				t.Fatalf("op %d: has %d: %v", i, nr, s.Has(nr))
			}
		}
		if i%300 == 0 {
			wholeSet(t, &s, model, bases, 3*near)
		}
	}
	wholeSet(t, &s, model, bases, 3*near)
	for _, b := range bases {
		s.Remove(b, b+3*near)
	}
	if s.Len() != 0 || len(s.parts) != 0 {
		t.Errorf("%d blocks, %d parts are left of an empty set", s.Len(), len(s.parts))
	}
}

func wholeSet(t *testing.T, s *BlockSet, model map[uint64]bool, bases []uint64, n uint64) {
	t.Helper()
	for _, b := range bases {
		for nr := b; nr < b+n; nr++ {
			if s.Has(nr) != model[nr] {
				t.Fatalf("has %d: %v, want %v", nr, s.Has(nr), model[nr])
			}
		}
	}
	for at, p := range s.parts {
		if p.n == 0 {
			t.Fatalf("part %d is kept and empty", at)
		}
	}
}

// TestBlockSetOfNothing: empty runs change nothing, not even the number of parts.
func TestBlockSetOfNothing(t *testing.T) {
	var s BlockSet
	s.Add(7, 7)
	s.Remove(5, 9)
	if s.Len() != 0 || len(s.parts) != 0 || s.Has(7) {
		t.Errorf("%d blocks in %d parts", s.Len(), len(s.parts))
	}
}
