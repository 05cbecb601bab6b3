package volume

import (
	"path/filepath"
	"strings"
	"syscall"

	"udm/dm"
	"udm/targets/snapshot"
	"udm/targets/thin"
)

// Kind is the kind of an object, determined by its table.
type Kind string

const (
	Disk     Kind = "disk"     // any table that a user loaded
	Clone    Kind = "clone"    // of an image, with a store
	Snapshot Kind = "snapshot" // of another object, with a store
	Merging  Kind = "merging"  // its store is being merged into its origin
	Pool     Kind = "pool"
	Volume   Kind = "volume" // of a pool
	// Hydrating: a source is being copied into its file.
	Hydrating Kind = "hydrating"
)

// object is a device and its table, with lasting names: mapped devices are named
// /dev/mapper/NAME.
type object struct {
	name     string
	dev      *dm.Device
	sectors  uint64
	readOnly bool
	table    []dm.Spec
	lines    []dm.Line // nil: a line could not be parsed
	record   Record
	kind     Kind
	// real is the device below, NAME-real, that has the previous table of an
	// object with snapshots; "": the object has no snapshots.
	real string
}

// The suffixes of devices that are made below objects.
const realSuffix, baseSuffix = "-real", "-base"

// object looks up a device. ENXIO: it does not exist.
func (m *Manager) object(name string) (*object, error) {
	d, err := m.control.Name(name)
	if err != nil {
		return nil, refuse(syscall.ENXIO, "there is no device named %q; udm ls lists the devices", name)
	}
	specs, mode, ok := d.Loaded(false)
	if !ok {
		return nil, refuse(syscall.ENXIO, "%s has no table; udm status %s says why", name, name)
	}
	o := &object{name: name, dev: d, readOnly: !mode.Write, record: m.devices.Record(name)}
	m.read(o, specs)
	return o, nil
}

func (m *Manager) exists(name string) bool {
	_, err := m.control.Name(name)
	return err == nil
}

// read fills in what the table says.
func (m *Manager) read(o *object, specs []dm.Spec) {
	o.kind, o.lines = Disk, nil
	for _, s := range specs {
		o.sectors = max(o.sectors, s.Start+s.Len)
		l, err := m.control.ParseLine(s)
		if err != nil {
			o.table = append(o.table, s)
			continue
		}
		for _, w := range l.Devices() {
			*w.Name = m.lasting(*w.Name)
		}
		o.lines = append(o.lines, l)
		o.table = append(o.table, dm.NewSpec(s.Start, s.Len, l))
	}
	if hydrates(&o.record, o.lines) {
		o.kind = Hydrating
	}
	if len(specs) != 1 || len(o.lines) != 1 {
		return
	}
	switch l := o.lines[0].(type) {
	case *snapshot.OriginLine:
		m.readReal(o, l.Origin)
	case *snapshot.MergeLine:
		o.kind = Merging
	case *snapshot.Line:
		o.kind = Clone
		if strings.HasSuffix(mapped(l.Origin), realSuffix) && m.front(mapped(l.Origin)) != "" {
			o.kind = Snapshot
		}
	case *thin.PoolLine:
		o.kind = Pool
	case *thin.ThinLine:
		o.kind = Volume
	}
}

// readReal makes o what it is without its snapshots.
func (m *Manager) readReal(o *object, origin string) {
	name := mapped(origin)
	if name != o.name+realSuffix {
		return
	}
	d, err := m.control.Name(name)
	if err != nil {
		return
	}
	if specs, _, ok := d.Loaded(false); ok {
		o.table, o.sectors = nil, 0
		m.read(o, specs)
		o.real = name
	}
}

// front returns the object that the device NAME-real was made for: the one that is
// based on it and writes to it. "": none.
func (m *Manager) front(real string) string {
	name := strings.TrimSuffix(real, realSuffix)
	d, err := m.control.Name(name)
	if err != nil {
		return ""
	}
	specs, _, _ := d.Loaded(false)
	if len(specs) != 1 || specs[0].Type != "snapshot-origin" && specs[0].Type != "snapshot-merge" {
		return ""
	}
	l, err := m.control.ParseLine(specs[0])
	if err != nil || mapped(m.lasting(*l.Devices()[0].Name)) != real {
		return ""
	}
	return name
}

// lasting names a mapped device by its name, however a table refers to it.
func (m *Manager) lasting(word string) string {
	if d := m.control.Mapped(word); d != nil {
		return dev(d.Name())
	}
	return word
}

const mapperDir = "/dev/mapper/"

// dev is a mapped device's path in tables. mapped is the reverse: "" if the word is
// not such a path.
func dev(name string) string { return mapperDir + name }

func mapped(word string) string {
	name, ok := strings.CutPrefix(word, mapperDir)
	if !ok {
		return ""
	}
	return name
}

// store returns the line of a clone or snapshot.
func (o *object) store() *snapshot.Line {
	switch l := o.lines[0].(type) {
	case *snapshot.Line:
		return l
	case *snapshot.MergeLine:
		return &l.Line
	}
	return nil
}

func (o *object) volume() *thin.ThinLine { return o.lines[0].(*thin.ThinLine) }
func (o *object) pool() *thin.PoolLine   { return o.lines[0].(*thin.PoolLine) }

// device is the object's own device with another table.
func (o *object) device(lines ...dm.Line) Device {
	d := Device{Name: o.name, ReadOnly: o.readOnly, Record: o.record}
	for _, l := range lines {
		d.Table = append(d.Table, dm.NewSpec(0, o.sectors, l))
	}
	return d
}

// users returns the devices whose tables use the named device.
func (m *Manager) users(name string) []*dm.Device {
	if !m.exists(name) {
		return nil
	}
	return m.control.Users(dev(name))
}

// snapshots returns the names of an object's snapshots. A snapshot that has snapshots
// itself is found through its NAME-real.
func (m *Manager) snapshots(o *object) (names []string) {
	if o.real == "" {
		return nil
	}
	for _, u := range m.users(o.real) {
		name := u.Name()
		if f := m.front(name); f != "" {
			name = f
		}
		if name != o.name {
			names = append(names, name)
		}
	}
	return names
}

// standing returns the names of the objects based on an object: its snapshots, and
// devices that users have stacked on it.
func (m *Manager) standing(o *object) []string {
	names := m.snapshots(o)
	for _, u := range m.users(o.name) {
		names = append(names, u.Name())
	}
	return names
}

// free refuses a name that is taken or not valid.
func (m *Manager) free(names ...string) error {
	for _, name := range names {
		if name == "" || strings.ContainsAny(name, "/") || len(name)+len(realSuffix) > 127 {
			return refuse(syscall.EINVAL, "%q is not a valid device name: it is empty, has a slash or is too long", name)
		}
		if _, err := m.control.Name(name); err == nil {
			return refuse(syscall.EEXIST, "a device named %s exists already; choose another name, or rename the device: udm rename %s OTHER", name, name)
		}
	}
	return nil
}

// storePath is the default path of a new object's store.
func (m *Manager) storePath(name string) string {
	return filepath.Join(m.root, "stores", name+".cow")
}

// unused returns a path for a new file, with a number before the extension if the
// path is taken.
func (m *Manager) unused(path string) string {
	ext := filepath.Ext(path)
	stem := strings.TrimSuffix(path, ext)
	for i := 1; ; i++ {
		if _, err := m.files.Stat(path); err != nil {
			return path
		}
		path = stem + "." + itoa(i) + ext
	}
}
