package segment

import (
	"sync"

	"udm/blk"
)

// Bounds of one call of ExtentsBelow: blocks looked up, and how many of them at a time.
const maxLookUps, lookUps = 1 << 18, 1 << 12

// Above are blocks of a target that are, or may be, elsewhere than on its segment.
type Above struct {
	Mu    sync.Locker
	Block uint64                   // sectors
	Has   func(sector uint64) bool // whether a block is; called with Mu held
}

// ExtentsBelow is the map of the segment, in which the blocks above it are data. They are
// looked at first: what moves down meanwhile is seen on the segment.
func (s *Segment) ExtentsBelow(a Above, offset, sectors uint64) []blk.Extent {
	above := a.extents(offset, sectors)
	return blk.EitherExtents(above, s.Extents(offset, blk.SumExtents(above)))
}

func (a *Above) extents(at, sectors uint64) (list []blk.Extent) {
	end := at + min(sectors, maxLookUps*a.Block)
	for at < end && len(list) < maxExtents {
		a.Mu.Lock()
		for n := 0; n < lookUps && at < end; n++ {
			block := at - at%a.Block
			next := min(end, block+a.Block)
			list = blk.AppendExtent(list, blk.Extent{Sector: at, Sectors: next - at, Data: a.Has(block)})
			at = next
		}
		a.Mu.Unlock()
	}
	return list
}
