package thin

import (
	"fmt"
	"slices"
	"testing"

	"udm/blk"
	"udm/blk/blktest"
	"udm/dm"
)

// extents compares the map of a range of a volume with its model. Nothing writes to
// the range meanwhile.
func (w *busyPool) extents(v *vol, sector, sectors uint64) {
	list, err := v.dev.Extents(sector, sectors)
	v.locked(func(m *blktest.Model) {
		if err == nil {
			err = m.CheckExtents(list)
		}
		if err != nil {
			w.Errorf("volume %d, extents %v: %v", v.id, list, err)
		}
	})
}

// wantExtents checks a whole map, written as data (+) and holes (-) in sectors.
func wantExtents(t testing.TB, d *dm.Device, want string) {
	t.Helper()
	got := ""
	for at, size := uint64(0), d.Limits().Size; at < size; {
		list, err := d.Extents(at, size-at)
		if err != nil || len(list) == 0 || list[0].Sector != at {
			t.Fatal(list, err)
		}
		for _, e := range list {
			got += fmt.Sprintf(" %c%d", "-+"[bit(e.Data)], e.Sectors)
			at += e.Sectors
		}
	}
	if got[1:] != want {
		t.Errorf("extents %s, want %s", got[1:], want)
	}
}

func bit(b bool) int {
	if b {
		return 1
	}
	return 0
}

func TestExtents(t *testing.T) {
	r := newRig(t)
	r.start(16)
	d := r.thin(0, 8)
	wantExtents(t, d, "-1024")
	r.Write(d, 2*bs+5, 1, 1)
	r.Write(d, 7*bs+bs-1, 1, 2)
	wantExtents(t, d, "-256 +128 -512 +128")
	r.Suspend(d, false)
	wantExtents(t, d, "+1024")
	r.msg("create_snap 1 0")
	r.Resume(d)
	r.Do(d, blk.Discard, 2*bs, bs, 0, blk.OK)
	wantExtents(t, d, "-896 +128")
	wantExtents(t, r.open(1, 9), "-256 +128 -512 +128 -128")
	_, th := r.internals(d)
	if got := th.Extents(7*bs+3, 5); !slices.Equal(got, blk.AllData(7*bs+3, 5)) {
		t.Error(got)
	}
	th.pool.call(func() { th.pool.setMode(modeFail) })
	wantExtents(t, d, "+1024")
	r.pool = nil // its metadata were given up
}

// TestExtentsWithOrigin: what is not mapped is as in the origin, which ends in a
// block.
func TestExtentsWithOrigin(t *testing.T) {
	r := newRig(t)
	r.start(16)
	r.Disk("o").Resize(3*128 + 7)
	blk.WriteSectors(r.Sim, r.Disk("o"), blktest.Pattern(128, 1, 1), 128, 0)
	blk.WriteSectors(r.Sim, r.Disk("o"), blktest.Pattern(384, 7, 1), 384, 0)
	r.msg("create_thin 0")
	d := r.Device("thin", fmt.Sprintf("0 %d thin /dev/mapper/pool 0 o", 6*bs))
	wantExtents(t, d, "-128 +128 -128 +7 -377")
	r.Write(d, 5, 1, 1)
	wantExtents(t, d, "+256 -128 +7 -377")
}

// TestExtentsInPieces: each call is bounded, and together they miss nothing.
func TestExtentsInPieces(t *testing.T) {
	r := newRig(t)
	const n = 3 * pieceMaps
	r.Disk("m").Resize(4 * 4096)
	r.start(n+1, "skip_block_zeroing")
	d := r.thin(0, 2*n)
	_, th := r.internals(d)
	r.mapEveryOther(th, 0, n)
	r.Do(d, blk.Write, n*bs, 1, 1, blk.OK)
	want := ""
	for range n/2 - 1 {
		want += "+128 -128 "
	}
	wantExtents(t, d, want+fmt.Sprintf("+128 -128 +128 -%d", (n-1)*bs))
	if list := th.Extents(0, 2*n*bs); len(list) < 1000 || len(list) > maxExtents+pieceRuns+1 {
		t.Errorf("%d extents in one call", len(list))
	}
	r.mapEveryOther(th, 1, n)
	wantExtents(t, d, fmt.Sprintf("+%d -%d", (n+1)*bs, (n-1)*bs))
}

// mapEveryOther maps every other block from begin to end.
func (r *rig) mapEveryOther(t *thin, begin, end uint64) {
	r.Helper()
	r.Sim.Go("map", func() {
		t.pool.call(func() {
			t.pool.change(t.vol)
			for b := begin; b < end; b += 2 {
				data, err := t.pool.md.AllocDataBlock()
				r.Must(err)
				r.Must(t.vol.td.Insert(b, data))
			}
		})
	})
	r.Sim.Run()
}
