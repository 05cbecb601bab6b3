package verity

import (
	"udm/blk"
)

// maxLooks bounds the blocks that one call looks up in the tree.
const maxLooks = 4096

// Extents passes on what the data device says of its data. What it says is a hole is one
// only where the tree says so as well: whoever can make holes in the data must not pass
// for the one who made the tree.
func (v *verity) Extents(offset, sectors uint64) (list []blk.Extent) {
	w := newWorker(v)
	w.quiet = true
	looks := 0
	for _, e := range blk.ExtentsOf(v.data.Device, offset, sectors) {
		if e.Data {
			list = blk.AppendExtent(list, e)
			continue
		}
		for at, end := e.Sector, e.Sector+e.Sectors; at < end; looks++ {
			if looks == maxLooks {
				return list
			}
			n := min(v.blockSize-at%v.blockSize, end-at)
			list = blk.AppendExtent(list, blk.Extent{Sector: at, Sectors: n, Data: !w.zero(at / v.blockSize)})
			at += n
		}
	}
	return list
}

// zero reports whether a block is one of zeroes by the tree.
func (w *worker) zero(block uint64) bool {
	want, st := w.digest(block, 0)
	return st == blk.OK && w.isZero(want)
}
