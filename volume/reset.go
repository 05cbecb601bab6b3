package volume

import (
	"context"
	"slices"
	"syscall"

	"udm/targets/thin"
)

// Reset makes clones equal to their bases, all or none: it discards all changes.
func (m *Manager) Reset(ctx context.Context, names ...string) error {
	return m.run(ctx, &reset{names: distinct(names)})
}

// distinct omits names that are repeated.
func distinct(names []string) (once []string) {
	seen := make(map[string]bool, len(names))
	for _, name := range names {
		if !seen[name] {
			once = append(once, name)
		}
		seen[name] = true
	}
	return once
}

type reset struct {
	names []string

	files   []File // new stores
	volumes []*object
	now     []Device
	gone    []string // old stores
}

func (c *reset) kind() string { return "reset" }

func (c *reset) touches(m *Manager) (cl claim, err error) {
	for _, name := range c.names {
		o, err := m.object(name)
		if err != nil {
			return claim{}, err
		}
		own := m.own(o)
		cl.objects, cl.shared = append(cl.objects, own.objects...), append(cl.shared, own.shared...)
	}
	return cl, nil
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
	if len(c.names) == 0 {
		return refuse(syscall.EINVAL, "give the name of a clone")
	}
	for _, name := range c.names {
		if err := c.one(m, name); err != nil {
			return err
		}
	}
	if len(c.files) > 0 {
		op.Add = steps{&makeFiles{c.files}}
	}
	deleted, err := c.newVolumes(m, op)
	if err != nil {
		return err
	}
	op.Then = steps{&swapTables{Devices: c.now, Independent: true}}
	if len(c.gone) > 0 {
		op.Then = append(op.Then, &removeFiles{Paths: c.gone})
	}
	op.Then = append(op.Then, deleted...)
	return nil
}

func (c *reset) one(m *Manager, name string) error {
	o, err := m.kindOf(name, Clone, Volume)
	if err != nil {
		return err
	}
	if names := m.standing(o); len(names) > 0 {
		return stoodOn(names, o.name)
	}
	if o.kind == Volume {
		if o.volume().Origin == "" {
			return refuse(syscall.EINVAL, "%s has no base; roll it back to a snapshot: udm rollback SNAPSHOT", o.name)
		}
		c.volumes = append(c.volumes, o)
		return nil
	}
	return c.store(m, o)
}

func (c *reset) store(m *Manager, o *object) error {
	l := *o.store()
	st, err := m.files.Stat(l.COW)
	if err != nil {
		return err
	}
	old := l.COW
	l.COW = m.unused(m.storePath(o.name))
	now := o.device(&l)
	now.Record.Files = append(without(o.record.Files, old), l.COW)
	c.files = append(c.files, storeFile(&l, st.Size))
	c.now = append(c.now, now)
	if slices.Contains(o.record.Files, old) {
		c.gone = append(c.gone, old)
	}
	return nil
}

func without(list []string, s string) []string {
	return slices.DeleteFunc(slices.Clone(list), func(o string) bool { return o == s })
}

// newVolumes plans new volumes in place of the old ones, and returns the steps that
// delete these.
func (c *reset) newVolumes(m *Manager, op *operation) (deleted steps, err error) {
	count := make(map[string]int)
	for _, o := range c.volumes {
		count[mapped(o.volume().Pool)]++
	}
	free := make(map[string][]uint32)
	for pool, n := range count {
		if free[pool], err = m.freeIDs(pool, n); err != nil {
			return nil, err
		}
	}
	for _, o := range c.volumes {
		l := o.volume()
		pool := mapped(l.Pool)
		id := free[pool][0]
		free[pool] = free[pool][1:]
		op.Add = append(op.Add, &createVolume{Pool: pool, ID: id})
		c.now = append(c.now, o.device(&thin.ThinLine{Pool: l.Pool, ID: id, Origin: l.Origin}))
		deleted = append(deleted, &deleteVolume{Pool: pool, ID: l.ID})
	}
	return deleted, nil
}
