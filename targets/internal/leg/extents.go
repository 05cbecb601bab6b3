package leg

import "udm/blk"

// Extents is the allocation map of the leg, beginning at a sector of the target.
func (l *Leg) Extents(offset, sectors uint64) []blk.Extent {
	list := blk.ExtentsOf(l.Dev.Device, l.Start+offset, sectors)
	for i := range list {
		list[i].Sector -= l.Start
	}
	return list
}

// Cursor moves forward through the allocation map of a leg.
type Cursor struct {
	leg  *Leg
	list []blk.Extent // extents fetched from the device and not passed yet
}

// Cursor returns a cursor, which may begin anywhere.
func (l *Leg) Cursor() Cursor { return Cursor{leg: l} }

// At reports whether an offset, which must not be less than the last one, holds
// data, and for how many sectors, at least one, this is known to hold. most, at
// least one, is the part of the map that the caller needs.
func (c *Cursor) At(offset, most uint64) (data bool, sectors uint64) {
	for len(c.list) > 0 && c.list[0].Sector+c.list[0].Sectors <= offset {
		c.list = c.list[1:]
	}
	if len(c.list) == 0 {
		c.list = c.leg.Extents(offset, most)
	}
	e := c.list[0]
	return e.Data, e.Sector + e.Sectors - offset
}
