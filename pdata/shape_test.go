package pdata

import (
	"errors"
	"math/rand/v2"
	"slices"
	"syscall"
	"testing"
)

// leaves makes a tree with a root and leaves of the given numbers of entries;
// keys are multiples of 2.
func (s *store) leaves(counts ...int) (root uint64) {
	s.t.Helper()
	t := &s.tree.t
	top := must(t.newNode(flagInternal, 8))
	key := uint64(0)
	var p [8]byte
	for i, c := range counts {
		n := must(t.newNode(flagLeaf, 8))
		first := key
		for j := range c {
			le.PutUint64(p[:], must(s.sm.New())<<24)
			n.insert(j, key, p[:])
			key += 2
		}
		le.PutUint64(p[:], n.nr)
		top.insert(i, first, p[:])
	}
	s.settle()
	return top.nr
}

// shape returns the numbers of entries of a root's leaves.
func (s *store) shape(root uint64) (counts []int) {
	s.t.Helper()
	n := must(s.tree.t.read(root, 0))
	if n.leaf() {
		return []int{n.count()}
	}
	for i := range n.count() {
		counts = append(counts, must(s.tree.t.read(n.child(i), 0)).count())
	}
	return counts
}

func sum(counts []int) (n int) {
	for _, c := range counts {
		n += c
	}
	return n
}

// TestBalanceRules pins the kernel's rules for nodes of 252 entries: when it
// moves, splits and merges, and how it distributes the entries.
func TestBalanceRules(t *testing.T) {
	const most, third = 252, 84
	remove := func(i int) func(*store, uint64, []int) (uint64, error) {
		return func(s *store, root uint64, counts []int) (uint64, error) {
			return s.tree.Remove(root, uint64(2*sum(counts[:i])))
		}
	}
	insert := func(i int) func(*store, uint64, []int) (uint64, error) {
		return func(s *store, root uint64, counts []int) (uint64, error) {
			return s.tree.Insert(root, must(s.sm.New())<<24, uint64(2*sum(counts[:i])+1))
		}
	}
	for _, c := range []struct {
		what   string
		counts []int
		do     func(*store, uint64, []int) (uint64, error)
		want   []int
	}{
		{"two merge", []int{third, third + 1}, remove(0), []int{2 * third}},
		{"two are evened out", []int{third, third + 2}, remove(0), []int{third, third + 1}},
		{"the last two are evened out", []int{200, 100, third}, remove(2), []int{200, 92, 91}},
		{"three become two", []int{third, third, 4*third - 2*third}, remove(1), []int{2*third - 1, 2 * third}},
		{"three are evened out", []int{third, third, 2*third + 1}, remove(1), []int{112, 112, 112}},
		{"three with a remainder of two", []int{200, third, 100}, remove(1), []int{128, 127, 128}},
		{"a full leaf moves to the left", []int{most - 8, most, most}, insert(1), []int{249, 248, most}},
		{"a full leaf moves to the right", []int{most - 7, most, most - 8}, insert(1), []int{most - 7, 249, 248}},
		{"an edge splits in two", []int{most, most, most}, insert(2), []int{most, most, 127, 126}},
		{"two become three", []int{most, most, most, most}, insert(1), []int{168, 169, 168, most, most}},
		{"two children split in two", []int{most, most}, insert(0), []int{127, 126, most}},
	} {
		s := newStore(t, 300, 0)
		ok(t, s.sm.Extend(5000))
		root := must(c.do(s, s.leaves(c.counts...), c.counts))
		if got := s.shape(root); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v became %v, want %v", c.what, c.counts, got, c.want)
		}
	}
}

// TestDrain empties full trees in several orders; no node may become too empty.
func TestDrain(t *testing.T) {
	n := scaled(30000)
	for name, order := range map[string]func(keys []uint64){
		"up":   func([]uint64) {},
		"down": slices.Reverse[[]uint64],
		"random": func(keys []uint64) {
			rand.New(rand.NewPCG(1, 1)).Shuffle(len(keys), func(i, j int) { keys[i], keys[j] = keys[j], keys[i] })
		},
		"sieve": func(keys []uint64) {
			slices.SortStableFunc(keys, func(a, b uint64) int { return int(a%7) - int(b%7) })
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStore(t, 2000, 0)
			ok(t, s.sm.Extend(uint64(n)))
			keys := make([]uint64, n)
			for i := range keys {
				keys[i] = uint64(i)
				s.root = must(s.tree.Insert(s.root, must(s.sm.New())<<24, uint64(i)))
			}
			order(keys)
			for i, k := range keys {
				s.root = must(s.tree.Remove(s.root, k))
				if s.settle(); i%500 == 0 {
					s.counts(s.root)
				}
			}
			if got := s.shape(s.root); !slices.Equal(got, []int{0}) {
				t.Fatalf("%v entries are left", got)
			}
			s.commit()
			s.check(s.root)
		})
	}
}

// TestNearlyFull changes a count with very few free blocks. The change has to
// copy a bitmap and a path of the reference count tree. It must either succeed
// with all counts right or fail for lack of space.
func TestNearlyFull(t *testing.T) {
	worked := 0
	const levels = 8
	for free := range uint64(levels) {
		s := newStore(t, 1200, 0)
		var taken []uint64
		for range 400 {
			nr := must(s.tm.New(kindBitmap)).Nr()
			ok(t, s.tm.Inc(nr))
			ok(t, s.tm.Inc(nr))
			taken = append(taken, nr)
		}
		s.commit()
		for s.tm.sm.Free() > free {
			taken = append(taken, must(s.tm.New(kindBitmap)).Nr())
		}
		// After a commit bitmaps and nodes have to be copied again.
		if s.tryCommit() != nil {
			continue
		}
		err := s.tm.Inc(taken[0])
		if errors.Is(err, syscall.ENOSPC) {
			continue
		}
		ok(t, err)
		meta, _ := s.counts(s.root)
		for i, nr := range taken {
			if meta[nr]++; i < 400 {
				meta[nr] += 2
			}
		}
		meta[taken[0]]++
		for nr := range s.tm.sm.Blocks() {
			if n := must(s.tm.Ref(nr)); n != meta[nr] {
				t.Fatalf("%d free: block %d counts %d, is used %d times", free, nr, n, meta[nr])
			}
		}
		worked++
	}
	if worked == 0 || worked == levels {
		t.Errorf("%d of %d worked: the edge was not met", worked, levels)
	}
}

// TestPullUpShared removes from a snapshot whose root has a single child. Two
// trees then use the child and everything it points to.
func TestPullUpShared(t *testing.T) {
	s := newStore(t, 300, 0)
	ok(t, s.sm.Extend(5000))
	ok(t, s.tree.Del(s.root))
	s.root = must(s.tree.Remove(s.leaves(84, 85), 0))
	if got := s.shape(s.root); !slices.Equal(got, []int{168}) {
		t.Fatalf("leaves of %v entries", got)
	}
	ok(t, s.tm.Inc(s.root))
	other := must(s.tree.Remove(s.root, 2))
	s.settle()
	s.check(s.root, other)
	if n := must(s.tree.t.read(other, 0)); !n.leaf() || n.count() != 167 {
		t.Fatalf("root has %d entries, leaf is %v", n.count(), n.leaf())
	}
}
