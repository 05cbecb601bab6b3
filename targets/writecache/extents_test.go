package writecache_test

import (
	"slices"
	"testing"

	"udm/blk"
	"udm/targets/internal/targettest"
)

// TestExtents: blocks in the cache are data where the origin has a hole.
func TestExtents(t *testing.T) {
	r := targettest.New(t, types)
	d := r.Device("x", small)
	want := func(sector, sectors uint64, list ...blk.Extent) {
		t.Helper()
		if got, err := d.Extents(sector, sectors); err != nil || !slices.Equal(got, list) {
			t.Errorf("%d+%d: %v, %v; want %v", sector, sectors, got, err, list)
		}
	}
	hole := func(from, to uint64) blk.Extent { return blk.Extent{Sector: from, Sectors: to - from} }
	data := func(from, to uint64) blk.Extent { return blk.Extent{Sector: from, Sectors: to - from, Data: true} }
	want(0, 16384, hole(0, 16384))
	r.Write(d, 8, 16, 1)
	r.Write(d, 1000, 8, 1)
	want(0, 16384, hole(0, 8), data(8, 24), hole(24, 1000), data(1000, 1008), hole(1008, 16384))
	want(20, 8, data(20, 24), hole(24, 28))
	r.Do(d, blk.Discard, 1000, 8, 0, blk.OK)
	want(0, 16384, hole(0, 8), data(8, 24), hole(24, 16384))
	r.Message(d, "flush", "", 0)
	const page = 128 // of the disk's map
	want(0, 16384, data(0, page), hole(page, 16384))
}
