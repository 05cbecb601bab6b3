package writecache

import (
	"udm/blk"
	"udm/targets/internal/segment"
)

// Extents is the map of the origin, in which the blocks in the cache are data.
func (w *writecache) Extents(offset, sectors uint64) []blk.Extent {
	cached := func(sector uint64) bool { return w.entries == nil || w.entries.readable(sector) != none }
	s := segment.Segment{Dev: w.origin}
	return s.ExtentsBelow(segment.Above{Mu: &w.mu, Block: w.blockSectors, Has: cached}, offset, sectors)
}
