package volume

import (
	"context"
	"slices"
	"syscall"

	"udm/targets/thin"
)

// Reset makes a clone equal to its base: it discards all changes.
func (m *Manager) Reset(ctx context.Context, name string) error {
	return m.run(ctx, &reset{name})
}

type reset struct{ name string }

func (c *reset) kind() string { return "reset" }

func (c *reset) touches(m *Manager) (claim, error) {
	o, err := m.object(c.name)
	if err != nil {
		return claim{}, err
	}
	return m.own(o), nil
}

// own is the claim for changing an object, and its pool if it is in one. The files in
// its table stay in use, also while the table moves to another device.
func (m *Manager) own(o *object) claim {
	cl := claim{objects: []string{o.name}}
	if o.kind == Volume {
		cl.objects = append(cl.objects, mapped(o.volume().Pool))
	}
	for _, l := range o.lines {
		for _, w := range l.Devices() {
			if mapped(*w.Name) == "" {
				cl.shared = append(cl.shared, *w.Name)
			}
		}
	}
	return cl
}

// with combines two claims.
func (c claim) with(o claim) claim {
	return claim{slices.Concat(c.objects, o.objects), slices.Concat(c.shared, o.shared)}
}

// ownFront is own for the object that a snapshot was taken of.
func (m *Manager) ownFront(o *object) claim {
	x, err := m.object(m.front(mapped(o.store().Origin)))
	if err != nil {
		return claim{}
	}
	return m.own(x)
}

func (c *reset) plan(m *Manager, op *operation) error {
	o, err := m.kindOf(c.name, Clone, Volume)
	if err != nil {
		return err
	}
	if names := m.standing(o); len(names) > 0 {
		return stoodOn(names, o.name)
	}
	if o.kind == Volume {
		return c.volume(m, op, o)
	}
	l := *o.store()
	st, err := m.files.Stat(l.COW)
	if err != nil {
		return err
	}
	old := l.COW
	l.COW = m.unused(m.storePath(o.name))
	now := o.device(&l)
	now.Record.Files = append(without(o.record.Files, old), l.COW)
	op.Add = steps{&makeFiles{[]File{storeFile(&l, st.Size)}}}
	op.Then = steps{&swapTables{Devices: []Device{now}}}
	if slices.Contains(o.record.Files, old) {
		op.Then = append(op.Then, &removeFiles{Paths: []string{old}})
	}
	return nil
}

func without(list []string, s string) []string {
	return slices.DeleteFunc(slices.Clone(list), func(o string) bool { return o == s })
}

func (c *reset) volume(m *Manager, op *operation, o *object) error {
	l := *o.volume()
	if l.Origin == "" {
		return refuse(syscall.EINVAL, "%s has no base; roll it back to a snapshot: udm rollback SNAPSHOT", o.name)
	}
	pool := mapped(l.Pool)
	ids, err := m.freeIDs(pool, 1)
	if err != nil {
		return err
	}
	old := l.ID
	l.ID = ids[0]
	op.Add = steps{&createVolume{Pool: pool, ID: l.ID}}
	op.Then = steps{&swapTables{Devices: []Device{o.device(&thin.ThinLine{Pool: l.Pool, ID: l.ID, Origin: l.Origin})}},
		&deleteVolume{Pool: pool, ID: old}}
	return nil
}
