package thin

import (
	"slices"

	"udm/dm"
)

// quietly runs fn on the owner while the volume has no I/O in flight. A write in
// flight to a block that becomes shared would be seen by the snapshot, and lost to
// the volume when it breaks sharing. The devices of the volume are suspended, as
// users of the kernel do by hand; devices that were suspended before stay so.
func (p *pool) quietly(id uint32, fn func()) {
	var held []*dm.Device
	for done := false; !done; {
		for _, d := range p.devicesOf(id) {
			if !slices.Contains(held, d) {
				d.InternalSuspend()
				held = append(held, d)
			}
		}
		p.call(func() {
			// Only the owner activates thins, so none can be added meanwhile.
			if done = p.allHeld(id, held); done {
				fn()
			}
		})
	}
	for _, d := range held {
		d.InternalResume()
	}
}

func (p *pool) allHeld(id uint32, held []*dm.Device) bool {
	return !slices.ContainsFunc(p.devicesOf(id), func(d *dm.Device) bool { return !slices.Contains(held, d) })
}

// devicesOf returns the devices that have a thin of the volume in a table.
func (p *pool) devicesOf(id uint32) (ds []*dm.Device) {
	for _, t := range p.activeThins() {
		if t.vol.id == id {
			ds = append(ds, t.t.Device())
		}
	}
	return ds
}
