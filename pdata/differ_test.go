package pdata

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
)

// differences is what two contents differ in, from a key on.
func differences(a, b map[uint64]uint64, from uint64) (list []string) {
	keys := maps.Clone(a)
	maps.Copy(keys, b)
	for _, k := range slices.Sorted(maps.Keys(keys)) {
		va, hasA := a[k]
		vb, hasB := b[k]
		if k >= from && (hasA != hasB || va != vb) {
			list = append(list, fmt.Sprint(k, " ", hasA, va, hasB, vb))
		}
	}
	return list
}

// differ asks for them in portions of so many nodes.
func (s *store) differ(a, b, from uint64, most int) (list []string, portions int) {
	s.t.Helper()
	for more := true; more; portions++ {
		var err error
		begin := from
		from, more, err = s.tree.Differ(a, b, from, most, func(k uint64, va, vb *uint64) bool {
			x, y := uint64(0), uint64(0)
			if va != nil {
				x = *va
			}
			if vb != nil {
				y = *vb
			}
			list = append(list, fmt.Sprint(k, " ", va != nil, x, vb != nil, y))
			return true
		})
		if err != nil || more && from <= begin {
			s.t.Fatalf("from %d the next portion begins at %d: %v", begin, from, err)
		}
	}
	return list, portions
}

// grown is a tree and changed snapshots of it, and of these.
func grown(t *testing.T, r *rand.Rand, roots, keys int) (*store, []uint64) {
	s := newStore(t, 20000, 0)
	s.sm.Extend(uint64(roots * keys * 2))
	s.commit()
	list := []uint64{s.root}
	for len(list) < roots {
		i := r.IntN(len(list))
		root := list[i]
		if len(list) > 1 {
			must(0, s.tm.Inc(root))
		}
		for range r.IntN(keys) {
			k := r.Uint64N(uint64(keys) * 3)
			switch {
			case r.IntN(3) > 0:
				root = must(s.tree.Insert(root, must(s.sm.New())<<24, k))
			case r.IntN(2) == 0:
				root, _, _ = s.tree.RemoveRange(root, k, k+r.Uint64N(40))
			}
		}
		if len(list) == 1 && list[0] == s.root {
			list[0] = root
			must(0, s.tm.Inc(root))
		}
		list = append(list, root)
		s.settle()
	}
	return s, list
}

// What two trees differ in is told, all of it and nothing else, whatever their
// shapes, and in portions of any size.
func TestDiffer(t *testing.T) {
	for seed := range uint64(scaled(20)) {
		r := rand.New(rand.NewPCG(seed, 5))
		s, roots := grown(t, r, 6, 1+r.IntN(4000))
		for _, a := range roots {
			for _, b := range roots {
				from := uint64(0)
				if r.IntN(3) == 0 {
					from = r.Uint64N(12000)
				}
				want := differences(s.contents(a), s.contents(b), from)
				got, _ := s.differ(a, b, from, 1+r.IntN(60))
				if !slices.Equal(got, want) {
					t.Fatalf("seed %d, trees %d and %d from %d: %d differences, want %d", seed, a, b, from, len(got), len(want))
				}
			}
		}
	}
}

// What trees share is not read: of two large trees with one difference, only the
// ways to it.
func TestDifferReadsWhatDiffers(t *testing.T) {
	s := newStore(t, 20000, 0)
	s.sm.Extend(200000)
	for k := range uint64(100000) {
		s.root = must(s.tree.Insert(s.root, must(s.sm.New())<<24, 2*k))
	}
	must(0, s.tm.Inc(s.root))
	other := must(s.tree.Insert(s.root, must(s.sm.New())<<24, 77777))
	list, portions := s.differ(s.root, other, 0, 16)
	if len(list) != 1 || portions != 1 {
		t.Errorf("%d differences in %d portions, want one in one: %v", len(list), portions, list)
	}
	if list, portions := s.differ(other, other, 0, 1); len(list) != 0 || portions != 1 {
		t.Errorf("a tree differs from itself in %d portions: %v", portions, list)
	}
	empty := must(s.tree.Empty())
	if list, _ := s.differ(empty, other, 0, 16); len(list) != 100001 {
		t.Errorf("an empty tree differs in %d keys, want all", len(list))
	}
}
