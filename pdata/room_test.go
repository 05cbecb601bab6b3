package pdata

import (
	"errors"
	"math/rand/v2"
	"slices"
	"syscall"
	"testing"
)

const perNode = 252 // the most that a node names

// takes is how many metadata blocks fn takes.
func (s *store) takes(fn func()) uint64 {
	before := s.tm.sm.allocated
	fn()
	return s.tm.sm.allocated - before
}

// within holds that a change took no more than its bound.
func within(t *testing.T, what string, i int, took, bound uint64) {
	t.Helper()
	if took > bound {
		t.Fatalf("op %d: %s took %d metadata blocks, the bound is %d", i, what, took, bound)
	}
}

// TestStoreCost holds the bound on an insert in trees that share nodes, while the
// counts of what they name come to lie in the reference count tree.
func TestStoreCost(t *testing.T) {
	rng := rand.New(rand.NewPCG(*seed, 21))
	s := newStore(t, 60000, 0)
	ok(t, s.sm.Extend(300000))
	s.commit()
	roots := []uint64{s.root}
	most, sharing := uint64(0), 0
	for i := range scaled(*ops) {
		j := rng.IntN(len(roots))
		k := rng.Uint64N(30000)
		switch op := rng.IntN(1000); {
		case op < 4 && len(roots) < 8:
			ok(t, s.tm.Inc(roots[j]))
			roots = append(roots, roots[j])
		case op < 6 && len(roots) > 1:
			ok(t, s.tree.Del(roots[j]))
			roots = slices.Delete(roots, j, j+1)
		case op < 30:
			s.commit()
		case op < 60: // fill leaves, so that some are split
			for n := range uint64(200) {
				roots[j] = s.insertNew(roots[j], k+n)
			}
		default:
			nodes, shared, err := s.tree.StoreCost(roots[j], k)
			ok(t, err)
			data := must(s.sm.Cost(2 + perNode*min(shared, 1)))
			meta := must(s.tm.Map().Cost(perNode * shared))
			took := s.takes(func() { roots[j] = s.insertNew(roots[j], k) })
			within(t, "an insert", i, took, nodes+data+meta)
			most = max(most, took)
			if shared > 0 {
				sharing++
			}
		}
		s.settle()
	}
	s.check(roots...)
	if most < 10 || sharing == 0 {
		t.Errorf("at most %d blocks were taken, %d inserts met shared nodes: the test looks at too little", most, sharing)
	}
}

// insertNew maps k to a free data block, if there is one.
func (s *store) insertNew(root, k uint64) uint64 {
	s.t.Helper()
	b, err := s.sm.New()
	if errors.Is(err, syscall.ENOSPC) {
		return root
	}
	ok(s.t, err)
	root, err = s.tree.Insert(root, b<<24, k)
	ok(s.t, err)
	return root
}

// TestCountCosts holds the bounds on changes of many counts at once, of data
// blocks and of metadata blocks.
func TestCountCosts(t *testing.T) {
	rng := rand.New(rand.NewPCG(*seed, 22))
	s := newStore(t, 60000, 0)
	c := newCounted(t, 400000, 23)
	ok(t, s.sm.Extend(c.size))
	var blocks []uint64 // of the metadata, held by themselves
	for range 2000 {
		blocks = append(blocks, must(s.tm.New(kindBitmap)).Nr())
	}
	refs := map[uint64]int{}
	s.commit()
	most := [2]uint64{}
	for i := range scaled(400) {
		n := 1 + rng.Uint64N(300)
		bound := must(s.sm.Cost(n))
		took := s.takes(func() {
			for range n {
				if c.rng.IntN(2) > 0 && len(c.used) > 0 {
					nr := c.used[c.rng.IntN(len(c.used))]
					d := 2*c.rng.IntN(2) - 1
					ok(t, s.sm.add([]span{{nr, nr + 1}}, int32(d)))
					c.add(nr, nr+1, d)
					continue
				}
				nr := c.rng.Uint64N(c.size)
				ok(t, s.sm.Inc(nr, nr+1))
				c.add(nr, nr+1, 1)
			}
		})
		within(t, "changes of data counts", i, took, bound)
		most[0] = max(most[0], took)
		s.settle()
		if i%3 == 0 {
			s.commit()
			c.commit()
		}
		bound = must(s.tm.Map().Cost(n))
		took = s.takes(func() {
			for range n {
				nr := blocks[rng.IntN(len(blocks))]
				if refs[nr] > 0 && rng.IntN(3) == 0 {
					ok(t, s.tm.Dec(nr))
					refs[nr]--
				} else {
					ok(t, s.tm.Inc(nr))
					refs[nr]++
				}
			}
		})
		within(t, "changes of metadata counts", i, took, bound)
		most[1] = max(most[1], took)
		s.settle()
	}
	if most[0] < 20 || most[1] < 5 {
		t.Errorf("at most %d blocks were taken: the test looks at too little", most)
	}
}
