package switchtarget

import (
	"udm/blk"
	"udm/targets/internal/segment"
)

// Extents takes each region's part from the map of the path that the region takes.
func (s *switcher) Extents(offset, sectors uint64) []blk.Extent {
	return segment.Layout{Run: s.run}.Extents(offset, sectors)
}

// run is the rest of the region that an offset lies in.
func (s *switcher) run(offset uint64) (seg *segment.Segment, sector, sectors uint64) {
	path := s.table.get(offset / s.region)
	return &s.paths[path], offset, s.region - offset%s.region
}
