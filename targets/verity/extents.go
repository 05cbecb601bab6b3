package verity

import (
	"udm/blk"
)

// maxLookups bounds the blocks that one call looks up in the tree.
const maxLookups = 4096

// Extents returns the extents of the data device, but reports holes only where the tree
// has the hash of zeroes as well: somebody who can punch holes into the data device must
// not be able to forge verified data. The list ends early after maxLookups blocks.
func (v *verity) Extents(offset, sectors uint64) (list []blk.Extent) {
	w := newWorker(v)
	w.quiet = true
	lookups := 0
	for _, e := range blk.ExtentsOf(v.data.Device, offset, sectors) {
		if e.Data {
			list = blk.AppendExtent(list, e)
			continue
		}
		for at, end := e.Sector, e.Sector+e.Sectors; at < end; lookups++ {
			if lookups == maxLookups {
				return list
			}
			n := min(v.blockSize-at%v.blockSize, end-at)
			list = blk.AppendExtent(list, blk.Extent{Sector: at, Sectors: n, Data: !w.zero(at / v.blockSize)})
			at += n
		}
	}
	return list
}

// zero reports whether the tree has the hash of zeroes for a data block.
func (w *worker) zero(block uint64) bool {
	want, st := w.digest(block, 0)
	return st == blk.OK && w.isZero(want)
}
