package linear

import "udm/blk"

// Extents is the map of the device below.
func (l *linear) Extents(offset, sectors uint64) []blk.Extent {
	return l.segment.Extents(offset, sectors)
}
