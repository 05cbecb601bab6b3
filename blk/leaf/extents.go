package leaf

import "udm/blk"

// Extents is the allocation map of the disk.
func (h *handle) Extents(sector, sectors uint64) ([]blk.Extent, error) {
	return blk.ExtentsOf(h.Device, sector, sectors), nil
}

// Extents is the allocation map of the device below.
func (b blocks) Extents(sector, sectors uint64) ([]blk.Extent, error) {
	return blk.ExtentsOf(b.Device, sector, sectors), nil
}
