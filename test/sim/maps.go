package sim

import (
	"udm/blk"
	"udm/blk/blktest"
)

// Extents is exact to the sector.
func (d *disk) Extents(sector, sectors uint64) ([]blk.Extent, error) {
	return blktest.ExactExtents(d.mem, sector, sectors)
}

// checkMap compares the allocation map of a part of a volume with its model: holes are
// zeroes. Nobody writes to v, but merges may go on. If acknowledged writes may get lost at
// any moment, the model does not know enough, and the map is not compared.
func (w *harness) checkMap(v *volume, sector, sectors uint64) bool {
	for end := sector + sectors; sector < end; {
		list := blk.ExtentsOf(v.h, sector, end-sector)
		if !(w.lossy && w.begun) && !w.right(v.model.CheckExtents(list), "extents of %s from %d on: %v", v.name, sector, list) {
			return false
		}
		for _, e := range list {
			sector += e.Sectors
			if !e.Data {
				w.stats.holes++
			}
		}
	}
	return true
}
