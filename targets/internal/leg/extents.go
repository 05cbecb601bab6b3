package leg

import "udm/blk"

// Extents is the allocation map of the leg, from a sector of the target on.
func (l *Leg) Extents(offset, sectors uint64) []blk.Extent {
	list := blk.ExtentsOf(l.Dev.Device, l.Start+offset, sectors)
	for i := range list {
		list[i].Sector -= l.Start
	}
	return list
}

// Cursor goes forward through the allocation map of a leg.
type Cursor struct {
	leg  *Leg
	list []blk.Extent // what the device has told and is not passed yet
}

// Cursor begins anywhere.
func (l *Leg) Cursor() Cursor { return Cursor{leg: l} }

// At tells whether there is data at an offset, none below the last one, and for
// how many sectors on that holds, as far as it is known: at least one. most, at
// least one, is how much of the map will be of use.
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
