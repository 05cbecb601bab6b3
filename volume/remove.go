package volume

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"syscall"

	"udm/targets/thin"
)

// RemoveSpec is a request to remove objects.
type RemoveSpec struct {
	Name string `json:"name,omitempty"`
	// Names are more objects: all are removed or none. Snapshots, pools and objects on
	// which others are based can only be removed alone.
	Names []string `json:"names,omitempty"`
	// Keep keeps the object's data: the store of a clone, which can be reused with
	// its base, or of a snapshot, the files of a pool, or the volume in its pool.
	// Except for the files of a pool, they are orphans afterwards.
	Keep bool `json:"keep,omitempty"`
	// All removes a pool even if it has volumes without a device.
	All bool `json:"all,omitempty"`
	// Kind, if set, is the kind that the object must have.
	Kind Kind `json:"kind,omitempty"`
}

// Remove removes objects and what was made for them: their files, their space in a pool,
// and with the last snapshot of an object the device below that object. It refuses if
// other objects are based on one.
func (m *Manager) Remove(ctx context.Context, s RemoveSpec) error {
	if s.Name != "" {
		s.Names = append([]string{s.Name}, s.Names...)
	}
	s.Names = distinct(s.Names)
	return m.run(ctx, &removal{RemoveSpec: s})
}

type removal struct {
	RemoveSpec

	devices, below []string // the objects' own, and those that were made below them
	volumes        steps    // delete the volumes
	after          steps    // what else is to be done
	files          []string // to be removed
	notes          []File
}

func (c *removal) kind() string { return "remove" }

func (c *removal) touches(m *Manager) (cl claim, err error) {
	for _, name := range c.Names {
		one, err := c.touchesOne(m, name)
		if err != nil {
			return claim{}, err
		}
		cl.objects, cl.shared = append(cl.objects, one.objects...), append(cl.shared, one.shared...)
	}
	return cl, nil
}

func (c *removal) touchesOne(m *Manager, name string) (claim, error) {
	o, err := m.object(name)
	if err != nil {
		if _, merr := m.control.Name(name); merr == nil {
			return claim{objects: []string{name}}, nil // a device without a table
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
	if len(c.Names) == 0 {
		return refuse(syscall.EINVAL, "give the name of a device")
	}
	for _, name := range c.Names {
		if err := c.one(m, name); err != nil {
			return err
		}
	}
	if len(c.notes) > 0 {
		op.Add = steps{&makeFiles{c.notes}}
	}
	op.Then = append(steps{&removeDevice{Names: c.devices}}, c.volumes...)
	op.Then = append(op.Then, c.after...)
	if len(c.below) > 0 {
		op.Then = append(op.Then, &removeDevice{Names: c.below})
	}
	if len(c.files) > 0 {
		op.Then = append(op.Then, &removeFiles{Paths: c.files})
	}
	return nil
}

func (c *removal) one(m *Manager, name string) error {
	o, err := m.object(name)
	if err != nil {
		c.devices = append(c.devices, name)
		c.takeFiles(&object{kind: Disk, record: m.devices.Record(name)})
		return nil
	}
	if err := errors.Join(m.whole(o), o.is(c.Kind)); err != nil {
		return err
	}
	if names := m.standing(o); len(names) > 0 {
		return stoodOn(names, o.name)
	}
	if len(c.Names) > 1 && (o.kind == Pool || o.kind == Snapshot) {
		return refuse(syscall.EINVAL, "%s is a %s, which cannot be removed together with others; remove it alone", o.name, o.kind)
	}
	c.devices = append(c.devices, o.name)
	switch o.kind {
	case Merging:
		return refuse(syscall.EBUSY, "%s is merging; data that is not merged yet would be lost: wait for it", o.name)
	case Pool:
		if err := c.emptyPool(o); err != nil {
			return err
		}
	case Volume:
		if !c.Keep {
			c.volumes = append(c.volumes, &deleteVolume{Pool: mapped(o.volume().Pool), ID: o.volume().ID})
		}
	case Snapshot:
		x, err := m.object(m.front(mapped(o.store().Origin)))
		if err != nil {
			return err
		}
		if len(m.snapshots(x)) == 1 {
			c.after = m.putBack(x)
		}
	}
	if base := o.name + baseSuffix; m.standsOn(o, base) {
		c.below = append(c.below, base)
	}
	c.takeFiles(o)
	return nil
}

// takeFiles removes the files that were made for an object, or keeps those with data
// and records the base of a clone's store.
func (c *removal) takeFiles(o *object) {
	files := o.record.Files
	switch {
	case !c.Keep:
	case o.kind == Clone || o.kind == Snapshot:
		files = without(files, o.store().COW)
		if o.record.Base != nil {
			c.notes = append(c.notes, note(o.store().COW, o.record.Base))
		}
	default:
		files = nil
	}
	c.files = append(c.files, files...)
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
