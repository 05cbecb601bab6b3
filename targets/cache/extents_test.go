package cache_test

import (
	"slices"
	"testing"
	"time"

	"udm/blk"
	"udm/targets/internal/targettest"
)

// TestExtents: blocks in the cache are data where the origin has a hole.
func TestExtents(t *testing.T) {
	r := targettest.New(t, types)
	d := r.Device("x", writeback)
	want := func(sector, sectors uint64, list ...blk.Extent) {
		t.Helper()
		if got, err := d.Extents(sector, sectors); err != nil || !slices.Equal(got, list) {
			t.Errorf("%d+%d: %v, %v; want %v", sector, sectors, got, err, list)
		}
	}
	hole := func(from, to uint64) blk.Extent { return blk.Extent{Sector: from, Sectors: to - from} }
	data := func(from, to uint64) blk.Extent { return blk.Extent{Sector: from, Sectors: to - from, Data: true} }
	want(0, 16384, hole(0, 16384))
	const page = 2 * bs     // of the disk's map
	r.Write(d, page, bs, 1) // into the cache
	r.Write(d, 4*page+8, 8, 1)
	want(0, 16384, hole(0, page), data(page, page+bs), hole(page+bs, 4*page), data(4*page, 5*page), hole(5*page, 16384))
	want(page+3, bs, data(page+3, page+bs), hole(page+bs, page+bs+3))
	wait(r, 5*time.Second) // written back
	want(0, 16384, hole(0, page), data(page, 2*page), hole(2*page, 4*page), data(4*page, 5*page), hole(5*page, 16384))
}
