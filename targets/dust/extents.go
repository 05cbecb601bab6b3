package dust

import "udm/blk"

// Extents is the map of the device below. While blocks may fail, all is data.
func (d *dust) Extents(offset, sectors uint64) []blk.Extent {
	if d.enabled.Load() {
		return blk.AllData(offset, sectors)
	}
	return d.segment.Extents(offset, sectors)
}
