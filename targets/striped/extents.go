package striped

import (
	"udm/blk"
	"udm/targets/internal/segment"
)

// Extents puts the maps of the stripes together.
func (s *striped) Extents(offset, sectors uint64) []blk.Extent {
	layout := segment.Layout{Run: s.run, Row: s.chunk * uint64(len(s.stripes)), Advance: s.chunk}
	return layout.Extents(offset, sectors)
}

// run is the rest of the chunk that an offset lies in.
func (s *striped) run(offset uint64) (seg *segment.Segment, sector, sectors uint64) {
	i, sector := s.place(offset)
	return &s.stripes[i].Segment, sector, s.chunk - offset%s.chunk
}
