package cache

import (
	"udm/blk"
	"udm/targets/internal/segment"
)

// Extents is the map of the origin, in which the blocks in the cache are data.
func (c *cache) Extents(offset, sectors uint64) []blk.Extent {
	cached := func(sector uint64) bool { return c.policy.Holds(sector / c.blockSectors) }
	s := segment.Segment{Dev: c.origin}
	return s.ExtentsBelow(segment.Above{Mu: &c.mu, Block: c.blockSectors, Has: cached}, offset, sectors)
}
