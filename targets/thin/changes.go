package thin

import (
	"udm/blk"
	"udm/dm"
	"udm/targets/thin/thinmeta"
)

// Changes is a part of what a volume has changed.
type Changes struct {
	// Extents are what has changed, ascending; what is between them has not.
	// Without Data it is mapped no more.
	Extents []blk.Extent
	Next    uint64 // the first sector that was not looked at, if there is More
	More    bool
	// Own says that the older volume was written to after it was made, where the
	// two differ: it is not what the newer one had then.
	Own bool
}

// Bounds of a portion: nodes of metadata that are read, and extents.
const (
	changesNodes = 64
	changesMost  = 1024
)

// ChangesSince tells what volume id of a pool has changed, from a sector on, against
// volume since of the pool, or against an empty one. The caller keeps the pool's
// table from being replaced meanwhile. ENODATA: there is no such volume.
func ChangesSince(pool *dm.Device, since *uint32, id uint32, sector uint64) (c Changes, err error) {
	p, err := poolOf(pool)
	if err != nil {
		return c, err
	}
	first := sector / p.blockSectors
	p.call(func() {
		var next uint64
		next, c.More, err = p.md.Differ(since, id, first, changesNodes, func(d thinmeta.Difference) bool {
			c.add(d, p.blockSectors)
			return len(c.Extents) < changesMost
		})
		c.Next = next * p.blockSectors
	})
	return c, err
}

func (c *Changes) add(d thinmeta.Difference, block uint64) {
	c.Own = c.Own || d.Own
	e := blk.Extent{Sector: d.Block * block, Sectors: block, Data: d.Mapped}
	if n := len(c.Extents); n > 0 {
		if l := &c.Extents[n-1]; l.Data == e.Data && l.Sector+l.Sectors == e.Sector {
			l.Sectors += block
			return
		}
	}
	c.Extents = append(c.Extents, e)
}
