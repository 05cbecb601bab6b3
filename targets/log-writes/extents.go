package logwrites

import (
	"udm/blk"
	"udm/targets/internal/segment"
)

// Extents is the map of the device, not of the log.
func (l *logWrites) Extents(offset, sectors uint64) []blk.Extent {
	place := segment.Segment{Dev: l.dev, Start: l.target.Begin}
	return place.Extents(offset, sectors)
}
