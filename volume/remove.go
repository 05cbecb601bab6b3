package volume

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"syscall"

	"udm/targets/thin"
)

// RemoveSpec is a request to remove an object.
type RemoveSpec struct {
	Name string `json:"name"`
	// Keep keeps the object's data: the store of a clone, which can be reused with
	// its base, or of a snapshot, the files of a pool, or the volume in its pool.
	// Except for the files of a pool, they are orphans afterwards.
	Keep bool `json:"keep,omitempty"`
	// All removes a pool even if it has volumes without a device.
	All bool `json:"all,omitempty"`
	// Kind, if set, is the kind that the object must have.
	Kind Kind `json:"kind,omitempty"`
}

// Remove removes an object and what was made for it: its files, its space in a pool,
// and with the last snapshot of an object the device below that object. It refuses if
// other objects are based on it.
func (m *Manager) Remove(ctx context.Context, s RemoveSpec) error {
	return m.run(ctx, &removal{s})
}

type removal struct{ RemoveSpec }

func (c *removal) kind() string { return "remove" }

func (c *removal) touches(m *Manager) (claim, error) {
	o, err := m.object(c.Name)
	if err != nil {
		if _, merr := m.control.Name(c.Name); merr == nil {
			return claim{objects: []string{c.Name}}, nil // a device without a table
		}
		return claim{}, err
	}
	cl := m.own(o)
	if o.kind == Snapshot {
		cl = cl.with(m.ownFront(o))
	}
	return cl, nil
}

func (c *removal) plan(m *Manager, op *operation) error {
	o, err := m.object(c.Name)
	if err != nil {
		op.Then = steps{&removeDevice{Name: c.Name}}
		c.takeFiles(op, &object{kind: Disk, record: m.devices.Record(c.Name)})
		return nil
	}
	if err := errors.Join(m.whole(o), o.is(c.Kind)); err != nil {
		return err
	}
	if names := m.standing(o); len(names) > 0 {
		return stoodOn(names, o.name)
	}
	op.Then = steps{&removeDevice{Name: o.name}}
	switch o.kind {
	case Merging:
		return refuse(syscall.EBUSY, "%s is merging; data that is not merged yet would be lost: wait for it", o.name)
	case Pool:
		if err := c.emptyPool(o); err != nil {
			return err
		}
	case Volume:
		if !c.Keep {
			op.Then = append(op.Then, &deleteVolume{Pool: mapped(o.volume().Pool), ID: o.volume().ID})
		}
	case Snapshot:
		x, err := m.object(m.front(mapped(o.store().Origin)))
		if err != nil {
			return err
		}
		if len(m.snapshots(x)) == 1 {
			op.Then = append(op.Then, m.putBack(x)...)
		}
	}
	if base := o.name + baseSuffix; m.standsOn(o, base) {
		op.Then = append(op.Then, &removeDevice{Name: base})
	}
	c.takeFiles(op, o)
	return nil
}

// takeFiles removes the files that were made for an object, or keeps those with data
// and records the base of a clone's store.
func (c *removal) takeFiles(op *operation, o *object) {
	files := o.record.Files
	switch {
	case !c.Keep:
	case o.kind == Clone || o.kind == Snapshot:
		files = without(files, o.store().COW)
		if o.record.Base != nil {
			op.Add = steps{&makeFiles{[]File{note(o.store().COW, o.record.Base)}}}
		}
	default:
		files = nil
	}
	if len(files) > 0 {
		op.Then = append(op.Then, &removeFiles{Paths: files})
	}
}

func (m *Manager) standsOn(o *object, name string) bool {
	d, err := m.control.Name(name)
	return err == nil && slices.Contains(o.dev.Deps(false), d.Number())
}

func (c *removal) emptyPool(o *object) error {
	ids, err := thin.Volumes(o.dev)
	if err != nil {
		return err
	}
	if len(ids) > 0 && !c.All && !c.Keep {
		return refuse(syscall.ENOTEMPTY, "%[2]s has %[1]d volumes without a device (for example %[3]d) that would be lost; udm orphans lists them", len(ids), o.name, ids[0])
	}
	return nil
}

// stoodOn refuses because objects are based on another. Removing them deletes their
// files, so the message first says how to keep the data.
func stoodOn(names []string, on string) error {
	return refuse(syscall.EBUSY, "%s %s; keep what is needed with udm cp before removing", list(names), stand(len(names), on))
}

func list(names []string) string {
	switch len(names) {
	case 1:
		return names[0]
	case 2:
		return names[0] + " and " + names[1]
	}
	return fmt.Sprintf("%s, %s and %d others", names[0], names[1], len(names)-2)
}

func stand(n int, on string) string {
	if n == 1 {
		return "depends on " + on
	}
	return "depend on " + on
}
