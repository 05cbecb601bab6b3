package zero

import "udm/blk"

// Extents returns one hole.
func (zero) Extents(offset, sectors uint64) []blk.Extent {
	return []blk.Extent{{Sector: offset, Sectors: sectors}}
}
