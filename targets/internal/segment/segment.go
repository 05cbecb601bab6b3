// Package segment is what targets that map to lower devices share: a [Segment] is
// the pair "DEVICE OFFSET" of most table lines, and a [Layout] puts the
// allocation map of a target together from those of its segments.
package segment

import (
	"udm/blk"
	"udm/dm"
)

// Segment is a run of sectors of a lower device that holds data of a target. How
// long it is depends on the target.
type Segment struct {
	Dev   *dm.Dev
	Start uint64 // the sector of Dev where it begins
}

// Open opens the device of a place in the mode of the table. Its error keeps the
// errno and has the text reason.
func Open(t *dm.Target, p dm.Place, reason string) (Segment, error) {
	d, err := t.Open(p.Device, t.Writable())
	return Segment{d, p.Start}, dm.Because(err, reason)
}

// Map redirects c to the segment, whose first sector is the target's first.
func (s *Segment) Map(c *dm.Clone) {
	c.SetDev(s.Dev)
	c.Sector = s.Start + c.Offset()
}

// Area is the part of the device that a segment of length sectors takes.
func (s *Segment) Area(length uint64) dm.Area {
	return dm.Area{Dev: s.Dev, Start: s.Start, Len: length}
}

// Place is the segment as table lines name it.
func (s *Segment) Place() dm.Place { return dm.Place{Device: s.Dev.Name(), Start: s.Start} }

func (s *Segment) String() string { return s.Place().String() }

// Extents is the allocation map of a part of the segment, which is not empty. Its
// sectors count from the segment's first.
func (s *Segment) Extents(offset, sectors uint64) []blk.Extent {
	list := blk.ExtentsOf(s.Dev.Device, s.Start+offset, sectors)
	for i := range list {
		list[i].Sector -= s.Start
	}
	return list
}
