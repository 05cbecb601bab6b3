package pdata

import (
	"errors"
	"maps"
	"math/rand/v2"
	"slices"
	"syscall"
	"testing"

	"udm/env"
)

// countArray counts an array's blocks in meta.
func (s *store) countArray(a *Array[uint32], root uint64, meta map[uint64]uint32) {
	s.t.Helper()
	s.countTree(&a.tree.t, root, meta, func(v []byte) { meta[le.Uint64(v)]++ })
}

func TestArrayModel(t *testing.T) {
	rng := rand.New(rand.NewPCG(*seed, 5))
	s := newStore(t, 4000, 1)
	a := NewArray(s.tm, U32)
	root := must(a.New(3000, func(i uint64) (uint32, error) { return uint32(i), nil }))
	model := make([]uint32, 3000)
	for i := range model {
		model[i] = uint32(i)
	}
	snap, snapModel := uint64(0), []uint32(nil)
	for i := range scaled(*ops / 4) {
		var err error
		switch op := rng.IntN(1000); {
		case op < 3:
			n := rng.Uint64N(300000)
			old := uint64(len(model))
			root, err = a.Resize(root, old, n, 7)
			for uint64(len(model)) < n {
				model = append(model, 7)
			}
			model = model[:n]
		case op < 6:
			if snap != 0 {
				if !equalArray(s, a, snap, snapModel) {
					t.Fatalf("op %d: the snapshot changed", i)
				}
				ok(t, a.Del(snap))
			}
			ok(t, s.tm.Inc(root))
			snap, snapModel = root, slices.Clone(model)
		case op < 16:
			s.commit()
		case op < 500 && len(model) > 0:
			k := rng.Uint64N(uint64(len(model)))
			model[k] = rng.Uint32()
			root, err = a.Set(root, k, model[k])
		default:
			k := rng.Uint64N(uint64(len(model)) + 10)
			v, gerr := a.Get(root, k)
			if k < uint64(len(model)) && (gerr != nil || v != model[k]) || k >= uint64(len(model)) && gerr != syscall.ENODATA {
				t.Fatalf("op %d: value %d of %d is %d, %v", i, k, len(model), v, gerr)
			}
		}
		if err != nil {
			t.Fatalf("op %d: %v", i, err)
		}
		s.settle()
	}
	if !equalArray(s, a, root, model) {
		t.Fatal("array differs from its model")
	}
	meta, _ := s.counts(s.root)
	s.countArray(a, root, meta)
	if snap != 0 {
		s.countArray(a, snap, meta)
	}
	got := map[uint64]uint32{}
	for nr := range s.tm.sm.Blocks() {
		if n := must(s.tm.Ref(nr)); n != 0 {
			got[nr] = n
		}
	}
	if !maps.Equal(got, meta) {
		t.Fatalf("%d blocks counted, %d in use", len(got), len(meta))
	}
}

func ok(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func equalArray(s *store, a *Array[uint32], root uint64, want []uint32) bool {
	var got []uint32
	ok(s.t, a.Walk(root, func(i uint64, v uint32) error {
		if i != uint64(len(got)) {
			s.t.Fatalf("value %d comes as %d", len(got), i)
		}
		got = append(got, v)
		return nil
	}))
	return slices.Equal(got, want)
}

func TestBitsetModel(t *testing.T) {
	rng := rand.New(rand.NewPCG(*seed, 6))
	s := newStore(t, 1000, 1)
	b := NewBitset(s.tm)
	const size = 100000
	root := must(b.New(size, func(i uint64) bool { return i%3 == 0 }))
	model := make([]bool, size)
	for i := range model {
		model[i] = i%3 == 0
	}
	for i := range scaled(*ops) {
		k := rng.Uint64N(size)
		if rng.IntN(2) == 0 {
			k = uint64(i) % size
		}
		var err error
		switch rng.IntN(3) {
		case 0:
			root, err = b.Set(root, k)
			model[k] = true
		case 1:
			root, err = b.Clear(root, k)
			model[k] = false
		case 2:
			var set bool
			if root, set, err = b.Test(root, k); set != model[k] {
				t.Fatalf("bit %d is %v", k, set)
			}
		}
		ok(t, err)
		s.settle()
	}
	root = must(b.Flush(root))
	root = must(b.Resize(root, size, size+640, true))
	n := uint64(0)
	ok(t, b.Walk(root, func(index, w uint64) error {
		for j := range uint64(64) {
			if i := index*64 + j; i < size && (w>>j&1 != 0) != model[i] || i >= (size+63)/64*64 && w>>j&1 == 0 {
				t.Fatalf("bit %d is wrong", i)
			}
			n++
		}
		return nil
	}))
	if n != (size+640+63)/64*64 {
		t.Fatalf("%d bits", n)
	}
}

// TestExtendWhenFull grows a metadata device that has no free block left.
func TestExtendWhenFull(t *testing.T) {
	s := newStore(t, 300, 0)
	taken := 0
	for {
		if _, err := s.tm.New(kindBitmap); err != nil {
			if !errors.Is(err, syscall.ENOSPC) {
				t.Fatal(err)
			}
			break
		}
		taken++
	}
	if taken < 200 {
		t.Fatalf("only %d blocks could be taken", taken)
	}
	for _, blocks := range []uint64{400, 20000, 60000} {
		s.d.Resize(blocks * BlockSectors)
		ok(t, s.tm.sm.Extend(blocks-s.tm.sm.Blocks()))
		s.commit()
		s.reopen()
		if s.tm.sm.Blocks() != blocks {
			t.Fatalf("%d blocks, want %d", s.tm.sm.Blocks(), blocks)
		}
	}
	s.countMap(&s.tm.sm.cur, map[uint64]uint32{})
	if free := s.tm.sm.Free(); free < 60000-300-20 {
		t.Fatalf("%d blocks free", free)
	}
}

// TestBitmapBitOrder pins the kernel's order of the two bits of an entry.
func TestBitmapBitOrder(t *testing.T) {
	b := bitmap(make([]byte, BlockSize))
	for i, want := range []byte{0b00, 0b10, 0b01, 0b11} {
		b.set(uint32(i), uint32(i))
		if got := b[bitmapHead] >> (2 * i) & 3; got != want {
			t.Errorf("count %d is stored as %02b, want %02b", i, got, want)
		}
		if b.get(uint32(i)) != uint32(i) {
			t.Errorf("count %d reads as %d", i, b.get(uint32(i)))
		}
	}
}

// TestReadersOfNothing checks that reading an uncached or impossible block finds
// no page.
func TestReadersOfNothing(t *testing.T) {
	s := newStore(t, 300, 0)
	if _, _, found := s.tree.TryLookup(MaxBlocks+7, []uint64{1}); found {
		t.Error("found something beyond every device")
	}
	bm := NewBlockManager(env.Real(), s.d, 0)
	if bm.peek(3) != nil {
		t.Error("an empty cache shows a page")
	}
}
