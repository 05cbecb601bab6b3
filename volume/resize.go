package volume

import (
	"context"
	"syscall"

	"udm/blk"
	"udm/dm"
	"udm/targets/linear"
)

// ResizeSpec is a request to resize an object.
type ResizeSpec struct {
	Name string `json:"name"`
	Size uint64 `json:"size"` // bytes
	// Shrink allows a smaller size, which cuts off the end.
	Shrink bool `json:"shrink,omitempty"`
	// Kind, if set, is the kind that the object must have.
	Kind Kind `json:"kind,omitempty"`
}

// Resize makes an object larger or smaller while it is in use.
func (m *Manager) Resize(ctx context.Context, s ResizeSpec) error {
	o, err := m.object(s.Name)
	if err == nil && o.kind == Pool {
		return m.GrowPool(ctx, s.Name, s.Size, 0)
	}
	return m.run(ctx, &resize{s})
}

type resize struct{ ResizeSpec }

func (c *resize) kind() string { return "resize" }

func (c *resize) touches(m *Manager) (claim, error) {
	if _, err := m.object(c.Name); err != nil {
		return claim{}, err
	}
	return claim{objects: []string{c.Name}}, nil
}

func (c *resize) plan(m *Manager, op *operation) error {
	o, err := m.object(c.Name)
	if err == nil {
		err = m.whole(o)
	}
	if err == nil {
		err = o.is(c.Kind)
	}
	if err != nil {
		return err
	}
	sectors := c.Size / blk.SectorSize
	names := m.standing(o)
	switch {
	case c.Size == 0 || c.Size%blk.SectorSize != 0:
		return refuse(syscall.EINVAL, "the size must be a multiple of %d bytes", blk.SectorSize)
	case o.kind == Hydrating:
		return hydrating(o)
	case o.kind == Snapshot || o.kind == Merging:
		return refuse(syscall.EINVAL, "%s is a %s, which has the size of its origin; clone or copy it", o.name, o.kind)
	case len(names) > 0:
		return stoodOn(names, o.name)
	case sectors < o.sectors && !c.Shrink:
		return refuse(syscall.EINVAL, "%s has %d bytes; a smaller size cuts off its end: use --shrink if the end is not needed", o.name, o.sectors*blk.SectorSize)
	}
	if sectors == o.sectors {
		return nil // it has that size already
	}
	switch o.kind {
	case Volume:
		l := o.volume()
		o.sectors = sectors
		op.Then = steps{&swapTables{Devices: []Device{o.device(l)}}}
		return nil
	case Clone:
		return c.clone(m, op, o, sectors)
	}
	return c.disk(m, op, o, sectors)
}

// disk resizes a disk that is a whole file.
func (c *resize) disk(m *Manager, op *operation, o *object, sectors uint64) error {
	l, ok := (*linear.Line)(nil), false
	if len(o.lines) == 1 {
		l, ok = o.lines[0].(*linear.Line)
	}
	if !ok || l.Start != 0 || mapped(l.Device) != "" {
		return refuse(syscall.EINVAL, "%s is not the whole of one file; load a table of the new size: udm dmsetup reload", o.name)
	}
	for _, u := range m.uses(l.Device) {
		if u != o.name {
			return stoodOn([]string{u}, l.Device)
		}
	}
	st, err := m.files.Stat(l.Device)
	if err != nil {
		return err
	}
	if st.Size < sectors*blk.SectorSize {
		op.Add = steps{&growFile{Path: l.Device, From: st.Size, To: sectors * blk.SectorSize}}
	}
	o.sectors = sectors
	op.Then = steps{&swapTables{Devices: []Device{o.device(l)}}}
	return nil
}

// clone makes a clone longer: zeroes follow the end of its base, and its store
// becomes large enough.
func (c *resize) clone(m *Manager, op *operation, o *object, sectors uint64) error {
	if sectors < o.sectors {
		return refuse(syscall.EINVAL, "%s is a clone, which cannot shrink; flatten it first", o.name)
	}
	l := *o.store()
	st, err := m.files.Stat(l.COW)
	if err != nil {
		return err
	}
	if size := storeSize(sectors); st.Size < size {
		op.Add = steps{&growFile{Path: l.COW, From: st.Size, To: size}}
	}
	base := Device{Name: o.name + baseSuffix, ReadOnly: true}
	was := o.sectors
	o.sectors = sectors
	if mapped(l.Origin) == base.Name {
		b, err := m.object(base.Name)
		if err != nil {
			return err
		}
		base.Table = longer(b.table, sectors)
		op.Then = steps{&swapTables{Devices: []Device{o.device(&l), base}}}
		return nil
	}
	if err := m.free(base.Name); err != nil {
		return err
	}
	base.Table = longer([]dm.Spec{dm.NewSpec(0, was, &linear.Line{Place: dm.Place{Device: l.Origin}})}, sectors)
	l.Origin = dev(base.Name)
	op.Add = append(op.Add, &createDevices{[]Device{base}})
	op.Then = steps{&swapTables{Devices: []Device{o.device(&l)}}}
	return nil
}

// longer returns a table with zeroes appended.
func longer(table []dm.Spec, sectors uint64) []dm.Spec {
	last := table[len(table)-1]
	if last.Type == "zero" {
		table, last = table[:len(table)-1], dm.Spec{Len: last.Start}
	}
	at := last.Start + last.Len
	return append(table[:len(table):len(table)], dm.Spec{Start: at, Len: sectors - at, Type: "zero"})
}
