package volume

import (
	"cmp"
	"context"
	"path/filepath"
	"syscall"

	"udm/dm"
	"udm/targets/snapshot"
	"udm/targets/thin"
)

// SnapshotSpec is a request to take snapshots.
type SnapshotSpec struct {
	Of        string   `json:"of"`                  // object to take snapshots of
	Names     []string `json:"names"`               // names of the snapshots, all taken at one moment
	Store     string   `json:"store,omitempty"`     // file for the store of a single snapshot; "": it gets a new one
	StoreSize uint64   `json:"storeSize,omitempty"` // capacity of a store in bytes; 0: all of the object
	// Labels are those of each snapshot.
	Labels map[string]string `json:"labels,omitempty"`
}

// Snapshot keeps the present state of an object. Later writes to the object or to a
// snapshot are not seen in the others.
func (m *Manager) Snapshot(ctx context.Context, s SnapshotSpec) error {
	return m.run(ctx, &takeSnapshot{s})
}

type takeSnapshot struct{ SnapshotSpec }

func (c *takeSnapshot) kind() string { return "snapshot" }

func (c *takeSnapshot) touches(m *Manager) (claim, error) {
	o, err := m.object(c.Of)
	if err != nil {
		return claim{}, err
	}
	return m.own(o).with(claim{objects: c.Names}), nil
}

func (c *takeSnapshot) plan(m *Manager, op *operation) error {
	o, err := m.object(c.Of)
	if err == nil {
		err = m.whole(o)
	}
	if err == nil {
		err = m.free(c.Names...)
	}
	switch {
	case err != nil:
		return err
	case !valid(c.Labels):
		return errLabels
	case len(c.Names) == 0:
		return refuse(syscall.EINVAL, "give a name for the snapshot")
	case o.kind == Pool || o.kind == Merging:
		return refuse(syscall.EINVAL, "%s is a %s; snapshots of it are not possible", o.name, o.kind)
	case o.kind == Volume:
		return c.inPool(m, op, o)
	case c.Store != "" && len(c.Names) > 1:
		return refuse(syscall.EINVAL, "a store can only be given for one snapshot")
	case c.Store != "" && !filepath.IsAbs(c.Store):
		return refuse(syscall.EINVAL, "the store %s is not an absolute path", c.Store)
	}
	return c.withStores(m, op, o)
}

// whole refuses a device that is part of an object.
func (m *Manager) whole(o *object) error {
	for _, suffix := range []string{realSuffix, baseSuffix} {
		if front, ok := cutSuffix(o.name, suffix); ok && len(m.users(o.name)) > 0 {
			if _, err := m.control.Name(front); err == nil {
				return refuse(syscall.EBUSY, "%s is part of %s; use %[2]s instead", o.name, front)
			}
		}
	}
	return nil
}

// inPool makes snapshots of a volume, in constant time.
func (c *takeSnapshot) inPool(m *Manager, op *operation, o *object) error {
	if c.Store != "" || c.StoreSize != 0 {
		return refuse(syscall.EINVAL, "%s is a volume of a pool, which keeps its snapshots; do not give a store", o.name)
	}
	l := o.volume()
	pool := mapped(l.Pool)
	ids, err := m.freeIDs(pool, len(c.Names))
	if err != nil {
		return err
	}
	var ds []Device
	for i, name := range c.Names {
		op.Add = append(op.Add, &createVolume{Pool: pool, ID: ids[i], Of: &l.ID, Quiet: o.name})
		line := &thin.ThinLine{Pool: l.Pool, ID: ids[i], Origin: l.Origin}
		ds = append(ds, Device{Name: name, Record: Record{Base: o.record.Base, Of: &l.ID, Labels: c.Labels},
			Table: []dm.Spec{dm.NewSpec(0, o.sectors, line)}})
	}
	op.Add = append(op.Add, &createDevices{ds})
	return nil
}

// withStores makes snapshots with a store each. The first snapshot moves the object's
// table to a device NAME-real, on which the object is then based.
func (c *takeSnapshot) withStores(m *Manager, op *operation, o *object) error {
	if o.real == "" {
		if err := m.free(o.name + realSuffix); err != nil {
			return err
		}
	}
	real := o.name + realSuffix
	var files []File
	var made, now []Device
	for _, name := range c.Names {
		l := storeLine(dev(real), cmp.Or(c.Store, m.unused(m.storePath(name))))
		files = append(files, storeFile(l, cmp.Or(c.StoreSize, storeSize(o.sectors))))
		d := Device{Name: name, Record: Record{Operation: op.ID, Files: []string{l.COW}, Labels: c.Labels}}
		made = append(made, d)
		d.Table = []dm.Spec{dm.NewSpec(0, o.sectors, l)}
		now = append(now, d)
	}
	front := o.device(&snapshot.OriginLine{Origin: dev(real)})
	swapped := append([]Device{front}, now...)
	if o.real == "" {
		d := Device{Name: real, Record: Record{Operation: op.ID}}
		made = append(made, d)
		d.Table, d.ReadOnly = o.table, o.readOnly
		swapped = append(swapped, d)
	}
	op.Add = steps{&makeFiles{files}, &createDevices{made}}
	op.Then = steps{&swapTables{Devices: swapped}}
	return nil
}
