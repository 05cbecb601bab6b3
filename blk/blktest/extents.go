package blktest

import (
	"bytes"
	"fmt"
	"slices"
	"testing"

	"udm/blk"
	"udm/blk/memdev"
	"udm/env"
)

// CheckExtents compares an allocation map that was asked for after the last
// change of the model: every hole must be where zeroes are legal. It settles
// nothing.
func (m *Model) CheckExtents(list []blk.Extent) error {
	for i, e := range list {
		if e.Sectors == 0 || i > 0 && (e.Sector != list[i-1].Sector+list[i-1].Sectors || e.Data == list[i-1].Data) {
			return fmt.Errorf("extent %d is empty, not the next, or like the one before", i)
		}
		if e.Data {
			continue
		}
		for s := e.Sector; s < e.Sector+e.Sectors; s++ {
			if !m.cells[s].mayBeZero() {
				return fmt.Errorf("sector %d in a hole holds one of %v", s, seeds(m.cells[s].legal()))
			}
		}
	}
	return nil
}

// ExactExtents returns an allocation map of d that is exact to the sector,
// computed from d's content. d must complete bios inline.
func ExactExtents(d blk.Device, sector, sectors uint64) (list []blk.Extent, err error) {
	p := make([]byte, sectors*blk.SectorSize)
	if err := blk.ReadSectors(env.Real(), d, p, sector); err != nil {
		return nil, err
	}
	for ; len(p) > 0; p, sector = p[blk.SectorSize:], sector+1 {
		data := !bytes.Equal(p[:blk.SectorSize], zeroSector[:])
		list = blk.AppendExtent(list, blk.Extent{Sector: sector, Sectors: 1, Data: data})
	}
	return list, nil
}

var zeroSector [blk.SectorSize]byte

// PassesExtents fails the test unless the wrapper that wrap returns has the
// allocation map of the wrapped device. Wrappers lose it by default, since it is
// not part of [blk.Device].
func PassesExtents(t *testing.T, wrap func(lower blk.Device) blk.Device) {
	t.Helper()
	lower := memdev.New(64)
	if err := blk.WriteSectors(env.Real(), lower, Pattern(8, 24, 1), 8, 0); err != nil {
		t.Fatal(err)
	}
	d := wrap(exact{lower})
	defer d.Close()
	for _, r := range [][2]uint64{{0, 64}, {0, 8}, {8, 24}, {16, 32}, {40, 8}} {
		want, _ := ExactExtents(lower, r[0], r[1])
		if got := blk.ExtentsOf(d, r[0], r[1]); !slices.Equal(got, want) {
			t.Errorf("%v: the allocation map of %d+%d is %v, below it is %v", d, r[0], r[1], got, want)
		}
	}
}

// exact is a disk with an exact allocation map.
type exact struct{ *memdev.Device }

func (d exact) Extents(sector, sectors uint64) ([]blk.Extent, error) {
	return ExactExtents(d.Device, sector, sectors)
}

// mayBeZero reports whether a read concurrent with the writes may find zeroes.
func (c *cell) mayBeZero() bool {
	legal := c.legal()
	i := slices.IndexFunc(c.versions, func(v version) bool { return v.id == legal[0].id })
	return slices.ContainsFunc(c.versions[max(i, 0):], func(v version) bool { return v.any || v.seed == 0 })
}
