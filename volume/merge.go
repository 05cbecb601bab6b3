package volume

import (
	"context"
	"slices"
	"syscall"

	"udm/dm"
	"udm/targets/linear"
	"udm/targets/snapshot"
	"udm/targets/thin"
)

// Merge writes the changes of a clone to its image, or restores an object to the
// state of a snapshot of it. A snapshot with a store is removed by this, one in a
// pool stays. A repeated request while a merge is in progress waits for it.
func (m *Manager) Merge(ctx context.Context, name string) error {
	return m.merge(ctx, &merge{name: name})
}

// Rollback is Merge, but only for snapshots.
func (m *Manager) Rollback(ctx context.Context, name string) error {
	return m.merge(ctx, &merge{name: name, back: true})
}

func (m *Manager) merge(ctx context.Context, c *merge) error {
	if op := m.underWay(c.kind(), c.name); op != nil {
		return m.await(ctx, op)
	}
	return m.run(ctx, c)
}

type merge struct {
	name string
	back bool // only for snapshots
}

func (c *merge) kind() string {
	if c.back {
		return "rollback"
	}
	return "merge"
}

func (c *merge) touches(m *Manager) (claim, error) {
	o, err := m.object(c.name)
	if err != nil {
		return claim{}, err
	}
	cl := claim{objects: []string{c.name}}
	switch o.kind {
	case Clone:
		cl.objects = append(cl.objects, o.store().Origin)
	case Snapshot:
		cl = cl.with(m.ownFront(o))
	case Volume:
		cl.objects = append(cl.objects, mapped(o.volume().Pool))
		for _, d := range m.control.List() {
			if v, err := m.object(d.Name()); err == nil && v.kind == Volume && v.name != c.name &&
				v.volume().Pool == o.volume().Pool && related(v, o) {
				cl.objects = append(cl.objects, v.name)
			}
		}
	}
	return cl, nil
}

// related reports whether a rollback to the snapshot s affects v: v is the volume
// that s was taken of, or another snapshot of that volume.
func related(v, s *object) bool {
	of := s.record.Of
	return of != nil && (v.volume().ID == *of || v.record.Of != nil && *v.record.Of == *of)
}

func (c *merge) plan(m *Manager, op *operation) error {
	o, err := m.object(c.name)
	if err != nil {
		return err
	}
	if names := m.standing(o); len(names) > 0 {
		return stoodOn(names, o.name)
	}
	if o.kind == Clone && c.back {
		return refuse(syscall.EINVAL, "%s is a clone, not a snapshot; reset discards its changes, merge writes them to its base", o.name)
	}
	switch o.kind {
	case Clone:
		return c.intoImage(m, op, o)
	case Snapshot:
		return c.intoOrigin(m, op, o)
	case Volume:
		return c.volume(m, op, o)
	case Hydrating:
		return hydrating(o)
	}
	return refuse(syscall.EINVAL, "%s is a %s; only clones and snapshots can be merged", o.name, o.kind)
}

// intoImage merges a clone into an image that nothing else is based on.
func (c *merge) intoImage(m *Manager, op *operation, o *object) error {
	l := o.store()
	if err := mergeable(o, l); err != nil {
		return err
	}
	if mapped(l.Origin) != "" {
		return refuse(syscall.EINVAL, "%s is not based on an image of its own size; flatten it, or commit it into a new base", o.name)
	}
	for _, u := range m.uses(l.Origin) {
		if u != o.name {
			return refuse(syscall.EBUSY, "%s depends on %s, too, and would be changed; commit %s into a new base instead", u, l.Origin, o.name)
		}
	}
	if text := m.Changed(o.name); text != "" {
		return refuse(syscall.ESTALE, "%s", text)
	}
	plain := o.device(&linear.Line{Place: dm.Place{Device: l.Origin}})
	plain.Record = Record{Labels: o.record.Labels}
	op.Then = steps{
		&swapTables{Devices: []Device{o.device(&snapshot.MergeLine{Line: *l})}},
		&awaitMerge{Device: o.name},
		&swapTables{Devices: []Device{plain}},
		&removeFiles{Paths: o.record.Files},
	}
	return nil
}

func mergeable(o *object, l *snapshot.Line) error {
	if !l.Persistent {
		return refuse(syscall.EINVAL, "the store of %s is not persistent; only a persistent one can be merged", o.name)
	}
	lines := o.dev.Lines(dm.Info, false, dm.StatusNoflush)
	if len(lines) == 1 && lines[0].Params == string(snapshot.Invalid) {
		return refuse(syscall.EINVAL, "%s is invalid: its content is lost, and there is nothing to merge", o.name)
	}
	return nil
}

// nothing is an error table for a device that is about to be removed.
func nothing(name string, sectors uint64, r Record) Device {
	return Device{Name: name, Record: r, Table: []dm.Spec{{Len: sectors, Type: "error"}}}
}

// intoOrigin merges a snapshot into the object that it was taken of. The object shows
// the snapshot's content at once and stays usable.
func (c *merge) intoOrigin(m *Manager, op *operation, o *object) error {
	l := o.store()
	if err := mergeable(o, l); err != nil {
		return err
	}
	if o.dev.Status().Opens > 0 {
		return refuse(syscall.EBUSY, "%s is in use; detach its clients first", o.name)
	}
	x, err := m.object(m.front(mapped(l.Origin)))
	if err != nil {
		return err
	}
	last := len(m.snapshots(x)) == 1
	op.Then = steps{
		&swapTables{Devices: []Device{nothing(o.name, o.sectors, o.record), x.device(&snapshot.MergeLine{Line: *l})}},
		&removeDevice{Name: o.name},
		&awaitMerge{Device: x.name},
	}
	if last {
		op.Then = append(op.Then, m.putBack(x)...)
	} else {
		op.Then = append(op.Then, &swapTables{Devices: []Device{x.device(&snapshot.OriginLine{Origin: l.Origin})}})
	}
	op.Then = append(op.Then, &removeFiles{Paths: o.record.Files})
	return nil
}

// putBack restores the table that an object without snapshots had before them.
func (m *Manager) putBack(x *object) steps {
	d := x.device()
	d.Table = x.table
	return steps{
		&swapTables{Devices: []Device{nothing(x.real, x.sectors, m.devices.Record(x.real)), d}},
		&removeDevice{Name: x.real},
	}
}

// volume replaces the volume that a snapshot was taken of by a new snapshot of the
// snapshot.
func (c *merge) volume(m *Manager, op *operation, o *object) error {
	if o.record.Of == nil {
		return refuse(syscall.EINVAL, "%s is not a snapshot of a volume; give a snapshot", o.name)
	}
	l := o.volume()
	pool := mapped(l.Pool)
	ids, err := m.freeIDs(pool, 1)
	if err != nil {
		return err
	}
	var x *object
	var siblings []Device
	for _, name := range op.Objects {
		v, err := m.object(name)
		if err != nil || v.kind != Volume || v.record.Of == nil && v.volume().ID != *o.record.Of {
			continue
		}
		if v.volume().ID == *o.record.Of {
			x = v
			continue
		}
		d := Device{Name: v.name, Table: v.table, ReadOnly: v.readOnly, Record: v.record}
		d.Record.Of = &ids[0]
		siblings = append(siblings, d)
	}
	if x == nil {
		return refuse(syscall.ENXIO, "the volume that %s was taken of is gone; rename %s, or take a snapshot of it", o.name, o.name)
	}
	old := x.volume().ID
	x.sectors = o.sectors
	now := x.device(&thin.ThinLine{Pool: l.Pool, ID: ids[0], Origin: l.Origin})
	op.Add = steps{&createVolume{Pool: pool, ID: ids[0], Of: &l.ID, Quiet: o.name}}
	op.Then = steps{&swapTables{Devices: slices.Concat([]Device{now}, siblings)}, &deleteVolume{Pool: pool, ID: old}}
	return nil
}
