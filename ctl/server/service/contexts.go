package service

import (
	"context"
	"sync/atomic"

	"udm/blk"
	"udm/dm"
	"udm/export"
	"udm/volume"
)

// What clients of NBD may ask about a device beside its allocation map, under the
// names that qemu gives these: which sectors have changed since a checkpoint, and at
// which height of a stack they are.

const (
	bitmapContext = "qemu:dirty-bitmap:" // with the name of a checkpoint
	depthContext  = "qemu:allocation-depth"
)

// dirty is the status of what has changed.
const dirty = 1

// The status of allocation-depth: nothing, or how many layers down.
const depthNone, depthOwn, depthBase = 0, 1, 2

func (s *Service) contexts(d *dm.Device) []export.Context {
	names, err := s.volumes.Checkpoints(d.Name())
	if err != nil {
		return nil // it has none, or is going
	}
	list := []export.Context{{Name: depthContext, Status: func(sector, sectors uint64) ([]export.Run, error) { return s.depth(d, sector, sectors) }}}
	for _, name := range names {
		b := &bitmap{s: s, d: d, since: name}
		list = append(list, export.Context{Name: bitmapContext + name, Status: b.status})
	}
	return list
}

// bitmap is what a device has changed since a checkpoint, for one client.
type bitmap struct {
	s     *Service
	d     *dm.Device
	since string
	of    atomic.Pointer[string] // what the first answer was about
}

func (b *bitmap) status(sector, sectors uint64) ([]export.Run, error) {
	spec := volume.ChangesSpec{Name: b.d.Name(), Since: b.since, Sector: sector, Sectors: sectors}
	if of := b.of.Load(); of != nil {
		spec.Of = *of
	}
	c, err := b.s.Changes(context.Background(), spec)
	if err != nil {
		return nil, err
	}
	b.of.CompareAndSwap(nil, &c.Of)
	return changedRuns(c, sector), nil
}

// changedRuns are the runs from a sector up to where an answer ends.
func changedRuns(c volume.Changes, sector uint64) (runs []export.Run) {
	add := func(end uint64, status uint32) {
		if end > sector {
			runs = append(runs, export.Run{Sectors: end - sector, Status: status})
			sector = end
		}
	}
	for _, e := range c.Extents {
		add(e.Sector, 0)
		add(e.Sector+e.Sectors, dirty)
	}
	add(c.Next, 0)
	return runs
}

// depth is where sectors are: in the device's own store or pool, or below that.
func (s *Service) depth(d *dm.Device, sector, sectors uint64) ([]export.Run, error) {
	own, err := s.Changes(context.Background(), volume.ChangesSpec{Name: d.Name(), Sector: sector, Sectors: sectors})
	if err != nil {
		return nil, err
	}
	list, err := d.Extents(sector, own.Next-sector)
	return depths(changedRuns(own, sector), list), err
}

// depths has depthOwn where there is something of the device's own, and depthBase
// where there is something else, as far as both lists go. They are used up.
func depths(own []export.Run, list []blk.Extent) (runs []export.Run) {
	for len(own) > 0 && len(list) > 0 {
		n := min(own[0].Sectors, list[0].Sectors)
		status := uint32(depthNone)
		switch {
		case own[0].Status == dirty:
			status = depthOwn
		case list[0].Data:
			status = depthBase
		}
		if l := len(runs) - 1; l >= 0 && runs[l].Status == status {
			runs[l].Sectors += n
		} else {
			runs = append(runs, export.Run{Sectors: n, Status: status})
		}
		if own[0].Sectors -= n; own[0].Sectors == 0 {
			own = own[1:]
		}
		if list[0].Sectors -= n; list[0].Sectors == 0 {
			list = list[1:]
		}
	}
	return runs
}
