package volume

import (
	"context"
	"path/filepath"
	"syscall"

	"udm/blk"
	"udm/dm"
	"udm/targets/linear"
	"udm/targets/snapshot"
)

// Flatten copies all data of an object into a file of its own, path, so that it
// depends on nothing else. The object stays usable meanwhile.
//
// The base of a clone, which does not change, is copied into the file, and the
// clone's store is merged into the file. An object that is not a clone is first made
// one, with a store for what is written meanwhile.
func (m *Manager) Flatten(ctx context.Context, name, path string) error {
	return m.run(ctx, &moveTo{name: name, path: path, flat: true})
}

// Commit makes a new base from an object: a file, path, with its present content, of
// which other clones can be made. The object becomes a clone of it with an empty
// store; its old base and the other clones of that stay as they are. The object stays
// usable meanwhile.
func (m *Manager) Commit(ctx context.Context, name, path string) error {
	return m.run(ctx, &moveTo{name: name, path: path})
}

// moveTo moves an object to a new file.
type moveTo struct {
	name, path string
	flat       bool
}

func (c *moveTo) kind() string {
	if c.flat {
		return "flatten"
	}
	return "commit"
}

func (c *moveTo) touches(m *Manager) (claim, error) {
	o, err := m.object(c.name)
	if err != nil {
		return claim{}, err
	}
	cl := m.own(o)
	cl.objects = append(cl.objects, c.path)
	if o.kind == Clone && mapped(o.store().Origin) != "" {
		cl.shared = append(cl.shared, mapped(o.store().Origin))
	}
	return cl, nil
}

func (c *moveTo) plan(m *Manager, op *operation) error {
	o, err := m.object(c.name)
	if err == nil {
		err = m.whole(o)
	}
	if err != nil {
		return err
	}
	names := m.standing(o)
	switch {
	case o.kind == Hydrating:
		return hydrating(o)
	case o.kind != Disk && o.kind != Clone && o.kind != Volume:
		return refuse(syscall.EINVAL, "%s is a %s; clone it, or copy its content", o.name, o.kind)
	case len(names) > 0:
		return stoodOn(names, o.name)
	case !filepath.IsAbs(c.path):
		return refuse(syscall.EINVAL, "%s is not an absolute path", c.path)
	}
	if _, err := m.files.Stat(c.path); err == nil {
		return refuse(syscall.EEXIST, "%s exists; give a new file", c.path)
	}
	if c.flat && o.kind == Clone {
		return c.flattenClone(m, op, o)
	}
	return c.freeze(m, op, o)
}

// flattenClone copies the base of a clone and merges the clone's store into the copy.
func (c *moveTo) flattenClone(m *Manager, op *operation, o *object) error {
	l := *o.store()
	if err := mergeable(o, &l); err != nil {
		return err
	}
	base := place{File: l.Origin}
	if name := mapped(l.Origin); name != "" {
		base = place{Device: name}
	}
	op.Add = steps{
		&makeFiles{[]File{{Path: c.path, Size: o.sectors * blk.SectorSize}}},
		&copyContent{From: base, To: place{File: c.path}},
	}
	op.Then = c.mergeStore(o, l)
	if m.standsOn(o, o.name+baseSuffix) {
		op.Then = append(op.Then, &removeDevice{Name: o.name + baseSuffix})
	}
	op.Then = append(op.Then, &removeFiles{Paths: o.record.Files})
	return nil
}

// mergeStore merges the store of a line into the new file, which holds a copy of its
// base.
func (c *moveTo) mergeStore(o *object, l snapshot.Line) steps {
	l.Origin = c.path
	plain := o.device(&linear.Line{Place: dm.Place{Device: c.path}})
	plain.Record = Record{Labels: o.record.Labels}
	return steps{
		&swapTables{Devices: []Device{o.device(&snapshot.MergeLine{Line: l})}},
		&awaitMerge{Device: o.name},
		&swapTables{Devices: []Device{plain}},
	}
}

// freeze moves the table of an object to a device NAME-real, which nobody writes to
// from then on, copies that device into the new file, and replaces it by the file.
func (c *moveTo) freeze(m *Manager, op *operation, o *object) error {
	real := o.name + realSuffix
	if err := m.free(real); err != nil {
		return err
	}
	store := m.unused(m.storePath(o.name))
	frozen := Device{Name: real, Record: Record{Operation: op.ID}}
	op.Add = steps{
		&makeFiles{[]File{{Path: c.path, Size: o.sectors * blk.SectorSize}, storeFile(storeLine("", store), storeSize(o.sectors))}},
		&createDevices{[]Device{frozen}},
	}
	frozen.Table, frozen.ReadOnly = o.table, o.readOnly
	now := o.device(storeLine(dev(real), store))
	now.Record.Files = append(without(o.record.Files, store), store)
	op.Then = steps{
		&swapTables{Devices: []Device{now, frozen}},
		&copyContent{From: place{Device: real}, To: place{File: c.path}},
	}
	moved := o.device(storeLine(c.path, store))
	moved.Record = Record{Operation: o.record.Operation, Files: []string{store}, Labels: o.record.Labels}
	if c.flat {
		op.Then = append(op.Then, c.mergeStore(&object{name: o.name, sectors: o.sectors, readOnly: o.readOnly, record: Record{Labels: o.record.Labels}}, *storeLine("", store))...)
	} else {
		op.Then = append(op.Then, &swapTables{Devices: []Device{moved}})
	}
	op.Then = append(op.Then, &removeDevice{Name: real})
	c.takeOld(m, op, o)
	if c.flat {
		op.Then = append(op.Then, &removeFiles{Paths: []string{store}})
	}
	return nil
}

// takeOld removes what the object was made of before.
func (c *moveTo) takeOld(m *Manager, op *operation, o *object) {
	if o.kind == Volume {
		op.Then = append(op.Then, &deleteVolume{Pool: mapped(o.volume().Pool), ID: o.volume().ID})
	}
	if m.standsOn(o, o.name+baseSuffix) {
		op.Then = append(op.Then, &removeDevice{Name: o.name + baseSuffix})
	}
	if len(o.record.Files) > 0 {
		op.Then = append(op.Then, &removeFiles{Paths: o.record.Files})
	}
}
