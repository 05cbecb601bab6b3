package leaf

import "udm/blk"

// Extents is the allocation map of the disk.
func (h *handle) Extents(sector, sectors uint64) ([]blk.Extent, error) {
	return blk.ExtentsOf(h.Device, sector, sectors), nil
}

// Extents is the map of the device in whole blocks. A block of which only a part is a
// hole is data.
func (b blocks) Extents(sector, sectors uint64) ([]blk.Extent, error) {
	block := uint64(b.size / blk.SectorSize)
	var list []blk.Extent
	for _, x := range blk.ExtentsOf(b.Device, sector, sectors) {
		end := x.Sector + x.Sectors
		from, to := end, end // of the hole
		if !x.Data {
			from = min((x.Sector+block-1)/block*block, end)
			to = max(end/block*block, from)
		}
		list = blk.AppendExtent(list, blk.Extent{Sector: x.Sector, Sectors: from - x.Sector, Data: true})
		list = blk.AppendExtent(list, blk.Extent{Sector: from, Sectors: to - from})
		list = blk.AppendExtent(list, blk.Extent{Sector: to, Sectors: end - to, Data: true})
	}
	return list, nil
}
