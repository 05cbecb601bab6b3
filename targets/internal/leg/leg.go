// Package leg represents the pair "DEVICE OFFSET" of most table lines: a device
// and the sector where a target's data begins on it.
package leg

import (
	"udm/dm"
)

// Leg is the location of a target's data.
type Leg struct {
	Dev   *dm.Dev
	Start uint64 // sectors
}

// Open opens the device of a place in the mode of the table. Its error keeps the
// errno and has the text reason.
func Open(t *dm.Target, p dm.Place, reason string) (Leg, error) {
	d, err := t.Open(p.Device, t.Writable())
	return Leg{d, p.Start}, dm.Because(err, reason)
}

// Map redirects c to its place on the leg.
func (l *Leg) Map(c *dm.Clone) {
	c.SetDev(l.Dev)
	c.Sector = l.Start + c.Offset()
}

// Area is the range of the leg's device that a target of length sectors uses.
func (l *Leg) Area(length uint64) dm.Area { return dm.Area{Dev: l.Dev, Start: l.Start, Len: length} }

// Place is the leg as written in table lines.
func (l *Leg) Place() dm.Place { return dm.Place{Device: l.Dev.Name(), Start: l.Start} }

func (l *Leg) String() string { return l.Place().String() }
