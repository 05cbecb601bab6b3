// Package segment is shared by targets that map to lower devices. A [Segment] is the
// pair "DEVICE OFFSET" of most table lines; a [Layout] builds a target's allocation
// map from those of its segments.
package segment

import (
	"udm/blk"
	"udm/dm"
)

// Segment is a run of sectors of a lower device that holds data of a target. How
// long it is depends on the target.
type Segment struct {
	Dev   *dm.Dev
	Start uint64 // first sector on Dev
}

// Open opens the device of a place in the mode of the table. Its error has the errno
// of the failure and the text reason.
func Open(t *dm.Target, p dm.Place, reason string) (Segment, error) {
	d, err := t.Open(p.Device, t.Writable())
	return Segment{d, p.Start}, dm.Because(err, reason)
}

// Map redirects c to the segment, whose first sector is the target's first.
func (s *Segment) Map(c *dm.Clone) {
	c.SetDev(s.Dev)
	c.Sector = s.Start + c.Offset()
}

// Area is the part of the device that the segment covers if it is length sectors
// long.
func (s *Segment) Area(length uint64) dm.Area {
	return dm.Area{Dev: s.Dev, Start: s.Start, Len: length}
}

// Place is the segment as written in a table line.
func (s *Segment) Place() dm.Place { return dm.Place{Device: s.Dev.Name(), Start: s.Start} }

func (s *Segment) String() string { return s.Place().String() }

// Extents is the allocation map of a part of the segment, which must not be empty.
// Sectors count from the start of the segment.
func (s *Segment) Extents(offset, sectors uint64) []blk.Extent {
	list := blk.ExtentsOf(s.Dev.Device, s.Start+offset, sectors)
	for i := range list {
		list[i].Sector -= s.Start
	}
	return list
}
