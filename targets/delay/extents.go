package delay

import "udm/blk"

// Extents is the map of the device that reads go to.
func (d *delay) Extents(offset, sectors uint64) []blk.Extent {
	return d.class[read].Extents(offset, sectors)
}
