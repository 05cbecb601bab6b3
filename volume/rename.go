package volume

import (
	"context"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"udm/dm"
)

// Rename changes the name of an object, and renames the files made for it if they
// start with its name. Clients stay connected.
func (m *Manager) Rename(ctx context.Context, name, to string) error {
	return m.run(ctx, &rename{name, to})
}

type rename struct{ name, to string }

func (c *rename) kind() string { return "rename" }

// touches includes the object's snapshots: while NAME has its new name already and
// NAME-real has not, they look like clones.
func (c *rename) touches(m *Manager) (claim, error) {
	cl := claim{objects: []string{c.name, c.to}}
	if o, err := m.object(c.name); err == nil {
		cl.objects = append(cl.objects, m.snapshots(o)...)
	}
	cl.objects = distinct(cl.objects)
	return cl, nil
}

func (c *rename) plan(m *Manager, op *operation) error {
	o, err := m.object(c.name)
	if err == nil {
		err = m.whole(o)
	}
	if err == nil {
		err = m.free(c.to)
	}
	switch {
	case err != nil:
		return err
	case o.kind == Merging:
		return refuse(syscall.EBUSY, "%s is merging; wait for it", c.name)
	}
	names := c.files(o)
	if len(names) > 0 {
		op.Add = steps{&linkFiles{names}}
	}
	op.Then = steps{&renameDevice{From: c.name, To: c.to}}
	for _, suffix := range []string{realSuffix, baseSuffix} {
		if _, err := m.control.Name(c.name + suffix); err == nil && m.partOf(o, c.name+suffix) {
			if err := m.free(c.to + suffix); err != nil {
				return err
			}
			op.Then = append(op.Then, &renameDevice{From: c.name + suffix, To: c.to + suffix})
		}
	}
	if len(names) > 0 {
		c.newNames(m, op, o, names)
	}
	return nil
}

// partOf reports whether a device was made below an object.
func (m *Manager) partOf(o *object, name string) bool {
	return name == o.real || m.standsOn(o, name) || o.real != "" && m.standsOn(&object{dev: mustName(m.control, o.real)}, name)
}

func mustName(c *dm.Control, name string) *dm.Device {
	d, _ := c.Name(name)
	return d
}

// files returns the old and new names of an object's files.
func (c *rename) files(o *object) (names []Names) {
	for _, f := range o.record.Files {
		if rest, ok := strings.CutPrefix(filepath.Base(f), c.name+"."); ok {
			names = append(names, Names{f, filepath.Join(filepath.Dir(f), c.to+"."+rest)})
		}
	}
	return names
}

// newNames puts the new names of files into the tables that have the old ones.
func (c *rename) newNames(m *Manager, op *operation, o *object, names []Names) {
	byOld := make(map[string]string)
	var old []string
	for _, n := range names {
		byOld[n.From] = n.To
		old = append(old, n.From)
	}
	var swapped []Device
	for _, part := range []string{c.name, c.name + realSuffix, c.name + baseSuffix} {
		d, err := m.control.Name(part)
		if err != nil || part != c.name && !m.partOf(o, part) {
			continue
		}
		specs, mode, _ := d.Loaded(false)
		n := Device{Name: c.to + strings.TrimPrefix(part, c.name), ReadOnly: !mode.Write, Record: m.devices.Record(part)}
		n.Table = m.renamed(specs, byOld)
		n.Record.Files = nil
		for _, f := range m.devices.Record(part).Files {
			if to := byOld[f]; to != "" {
				f = to
			}
			n.Record.Files = append(n.Record.Files, f)
		}
		swapped = append(swapped, n)
	}
	op.Then = append(op.Then, &swapTables{Devices: swapped}, &removeFiles{Paths: old})
}

// numberDevices gives the tables of a plan lasting names: the devices that they use
// may be renamed before the steps are done.
func (m *Manager) numberDevices(op *operation) {
	for _, s := range slices.Concat(op.Add, op.Then) {
		var ds []Device
		switch s := s.(type) {
		case *createDevices:
			ds = s.Devices
		case *swapTables:
			ds = s.Devices
		}
		for i := range ds {
			ds[i].Table = m.renamed(ds[i].Table, nil)
		}
	}
}

// renamed returns a table with the new names of files, and with mapped devices by
// their numbers, which no rename changes.
func (m *Manager) renamed(specs []dm.Spec, byOld map[string]string) []dm.Spec {
	var out []dm.Spec
	for _, s := range specs {
		if l, err := m.control.ParseLine(s); err == nil {
			for _, w := range l.Devices() {
				if to := byOld[*w.Name]; to != "" {
					*w.Name = to
				} else if d := m.control.Mapped(*w.Name); d != nil {
					*w.Name = d.Number().String()
				}
			}
			s = dm.NewSpec(s.Start, s.Len, l)
		}
		out = append(out, s)
	}
	return out
}
