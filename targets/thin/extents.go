package thin

import (
	"udm/blk"
	"udm/targets/internal/segment"
)

// Bounds of one call, and of the pieces in which the owner serves it. Between pieces
// the owner does other work.
const (
	maxExtents = 1024
	maxPieces  = 32
	pieceRuns  = 128
	pieceMaps  = 1024 // mapped blocks: some leaves of the tree
)

// Extents reports mapped blocks as data, and elsewhere what the external origin
// reports, up to its end. The owner reads the mappings, so a write to an unmapped
// block has been mapped if it ended before the call.
func (t *thin) Extents(offset, sectors uint64) (list []blk.Extent) {
	end := offset + sectors
	for n := 0; offset < end && len(list) < maxExtents && n < maxPieces; n++ {
		for _, e := range t.piece(offset, end) {
			for _, x := range t.unmapped(e) {
				list = blk.AppendExtent(list, x)
				offset += x.Sectors
			}
			if offset < e.Sector+e.Sectors {
				return list // the origin reports no more in one call
			}
		}
	}
	return list
}

// piece returns at least one run of mapped or unmapped blocks, clipped to the range.
func (t *thin) piece(offset, end uint64) (list []blk.Extent) {
	first, _ := t.split(offset)
	last, _ := t.split(end - 1)
	t.pool.call(func() { list = t.runs(first, last+1) })
	at := offset
	for i := range list {
		e := &list[i]
		stop := min(e.Sector+e.Sectors, end)
		e.Sector, e.Sectors = at, stop-at
		at = stop
	}
	return list
}

// runs returns the first runs in [begin, end), which is not empty, in sectors. Blocks
// whose mapping cannot be read count as data. Runs on the owner.
func (t *thin) runs(begin, end uint64) (list []blk.Extent) {
	add := func(to uint64, data bool) {
		list = blk.AppendExtent(list, blk.Extent{Sector: begin * t.blockSectors, Sectors: (to - begin) * t.blockSectors, Data: data})
		begin = to
	}
	if t.pool.mode() == modeFail {
		add(end, true)
		return list
	}
	left, more := pieceMaps, false
	err := t.vol.td.EachMapped(begin, func(b uint64) bool {
		if b >= end {
			return false
		}
		add(b, false)
		add(b+1, true)
		left--
		more = left == 0 || len(list) >= pieceRuns
		return !more
	})
	if !more {
		add(end, err != nil)
	}
	return list
}

// unmapped returns the extents of a run: data if mapped, else those of the external
// origin.
func (t *thin) unmapped(e blk.Extent) []blk.Extent {
	size := t.originSize.Load()
	if e.Data || t.origin == nil || e.Sector >= size {
		return []blk.Extent{e}
	}
	n := min(e.Sectors, size-e.Sector)
	list := (&segment.Segment{Dev: t.origin}).Extents(e.Sector, n)
	if blk.SumExtents(list) < n {
		return list
	}
	return blk.AppendExtent(list, blk.Extent{Sector: size, Sectors: e.Sectors - n})
}

// Extents are those of the data device, to which all I/O is passed.
func (pt *poolTarget) Extents(offset, sectors uint64) []blk.Extent {
	return (&segment.Segment{Dev: pt.data}).Extents(offset, sectors)
}
