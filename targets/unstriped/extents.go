package unstriped

import (
	"udm/blk"
	"udm/targets/internal/segment"
)

// Extents picks this stripe's chunks out of the map of the device.
func (u *unstriped) Extents(offset, sectors uint64) []blk.Extent {
	layout := segment.Layout{Run: u.run, Row: u.chunk, Advance: u.chunk * uint64(u.stripes)}
	return layout.Extents(offset, sectors)
}

// run is the rest of the chunk that an offset lies in.
func (u *unstriped) run(offset uint64) (seg *segment.Segment, sector, sectors uint64) {
	at := u.begin + offset
	return &u.segment, u.place(at), u.chunk - at%u.chunk
}
