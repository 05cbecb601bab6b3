package logwrites

import (
	"udm/blk"
	"udm/targets/internal/leg"
)

// Extents is that of the device, not of the log.
func (l *logWrites) Extents(offset, sectors uint64) []blk.Extent {
	place := leg.Leg{Dev: l.dev, Start: l.target.Begin}
	return place.Extents(offset, sectors)
}
