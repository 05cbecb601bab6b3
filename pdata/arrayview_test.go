package pdata

import (
	"testing"

	"udm/blk"
	"udm/blk/memdev"
	"udm/env"
)

// TestArraysOffline: an array that was written in one go is an array, is walked and
// checked whole; damage to one of its blocks is found, and walked around.
func TestArraysOffline(t *testing.T) {
	for _, n := range []uint64{0, 1, 1018, 1019, 5000} {
		dev := memdev.New(100*BlockSectors, memdev.Volatile)
		root, space := writeArray(t, dev, n)
		bm := NewBlockManager(env.Real(), dev, 0)
		online := NewArray(must(OpenTM(bm, space)), U32)
		for _, i := range []uint64{0, n / 2, n - 1} {
			if v, err := online.Get(root, i); i < n && (err != nil || v != uint32(i*7)) {
				t.Fatalf("value %d of %d is %d, %v", i, n, v, err)
			}
		}
		c := NewChecker(bm, func(d *Corrupt) { t.Error(d) })
		c.Refs.Add(0, 1)
		if got, whole := c.Array("array", root, 4); got != n || !whole {
			t.Fatalf("%d values, %v", got, whole)
		}
		c.Map("map", space, true).Compare(c.Refs, func(_, nr uint64, have, want uint32) {
			t.Errorf("block %d is counted %d times, used %d times", nr, have, want)
		})
		if n > 1018 {
			damagedArray(t, dev, root, n)
		}
	}
}

// writeArray writes an array of n values, which is all that is on dev.
func writeArray(t *testing.T, dev blk.Device, n uint64) (root uint64, space MapRoot) {
	t.Helper()
	b := must(NewBulk(env.Real(), dev, 0))
	a := b.NewArrayBuilder(4)
	for i := range n {
		var p [4]byte
		le.PutUint32(p[:], uint32(i*7))
		ok(t, a.Add(p[:]))
	}
	root, space = must(a.Finish()), must(b.MetadataMap())
	ok(t, b.Finish(0, kindIndex, make([]byte, BlockSize)))
	return root, space
}

// damagedArray damages the first block of an array.
func damagedArray(t *testing.T, dev blk.Device, root, n uint64) {
	t.Helper()
	const first = 1 // the block that Bulk has written first
	p := make([]byte, BlockSize)
	ok(t, blk.ReadSectors(env.Real(), dev, p, first*BlockSectors))
	p[100] ^= 1
	ok(t, blk.WriteSectors(env.Real(), dev, p, first*BlockSectors, 0))
	bm := NewBlockManager(env.Real(), dev, 0)
	found, walked := 0, uint64(0)
	c := NewChecker(bm, func(d *Corrupt) {
		if found++; d.Block != first {
			t.Errorf("damage in block %d", d.Block)
		}
	})
	if _, whole := c.Array("array", root, 4); whole || found != 1 {
		t.Errorf("%d damages were found, the array is whole: %v", found, whole)
	}
	err := WalkArray(bm, root, 4, func(error) { found++ }, func(_ uint64, _ []byte, n int) error { walked += uint64(n); return nil })
	if err != nil || found != 2 || walked != n-uint64(ArrayEntries(4)) {
		t.Errorf("%d damages, %d of %d values walked, %v", found, walked, n, err)
	}
	if WalkArray(bm, root, 4, nil, func(uint64, []byte, int) error { return nil }) == nil {
		t.Error("damage was walked over")
	}
}
