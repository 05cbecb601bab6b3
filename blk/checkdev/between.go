package checkdev

import (
	"udm/blk"
	"udm/internal/invariants"
)

// Between checks the bios between two levels of a stack in builds with
// invariants. It owns lower and passes everything on. It panics if the level
// above submits a bio that breaks the contract or changes the data of a write in
// flight, or if the level below completes a bio twice. It never answers a bio
// itself, so a build with it behaves like one without.
func Between(lower blk.Device) blk.Device { return &between{lower, lower.Limits()} }

// between's fields are set once by Between.
type between struct {
	lower blk.Device
	was   blk.Limits // at open: a device may shrink while in use
}

func (d *between) Submit(b *blk.Bio) {
	l := d.lower.Limits()
	l.Size = max(l.Size, d.was.Size)
	l.LogicalBlock = min(l.LogicalBlock, d.was.LogicalBlock)
	invariants.Check(int(b.Op) < len(allowed), "%v was sent to %v", b, d.lower)
	invariants.Check(b.Flags&^allowed[b.Op] == 0, "%v was sent to %v, which knows no such flag for it", b, d.lower)
	invariants.Check(b.End != nil, "%v was sent to %v without an End", b, d.lower)
	if b.Op != blk.Flush && l.Size > 0 {
		invariants.Check(fits(b, &l), "%v was sent to %v of %d sectors in blocks of %d bytes", b, d.lower, l.Size, l.LogicalBlock)
	}
	d.lower.Submit(watch(b, false))
}

func (d *between) Limits() blk.Limits { return d.lower.Limits() }
func (d *between) Close() error       { return d.lower.Close() }
func (d *between) String() string     { return d.lower.String() }

// Extents is that of the device below.
func (d *between) Extents(sector, sectors uint64) ([]blk.Extent, error) {
	return blk.ExtentsOf(d.lower, sector, sectors), nil
}
