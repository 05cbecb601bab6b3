package flakey

import "udm/blk"

// Extents is the map of the device below. While the target is down, reads may fail or be
// corrupted, so all is data.
func (f *flakey) Extents(offset, sectors uint64) []blk.Extent {
	if f.isDown() {
		return blk.AllData(offset, sectors)
	}
	return f.segment.Extents(offset, sectors)
}
