package lvm

import (
	"errors"
	"fmt"
	"slices"

	"udm/dm"
)

// Device is a mapped device as LVM would create it. Its table names a physical volume
// by its disk, and another device by "/dev/mapper/" and its name.
type Device struct {
	Name     string
	UUID     string
	LV       string // logical volume of which it is the device or a layer
	ReadOnly bool
	Table    []Line
}

// Line is one target of a table.
type Line struct {
	Start, Len uint64 // sectors
	dm.Line
}

// String is the line as in a table.
func (l Line) String() string {
	text := fmt.Sprintf("%d %d %s", l.Start, l.Len, l.Target())
	if words := l.Line.String(); words != "" {
		text += " " + words
	}
	return text
}

// Skipped is a logical volume without devices, and the reason.
type Skipped struct {
	LV  string
	Why error
}

// TreeOptions selects the volumes to activate.
type TreeOptions struct {
	Only    []string // only these volumes and what they need; nil: all visible ones
	Partial bool     // also volumes with missing parts, which return errors
	Skip    bool     // also volumes with ACTIVATION_SKIP
	// ReadOnly makes devices that change nothing below them, not even what a pool or
	// a merge would change by itself.
	ReadOnly bool
	// Below maps physical volumes, by their names in the group's text, to their names
	// in tables, where these are not the names of disks.
	Below map[string]string
}

// Tree returns the devices of a group's volumes in the order of creation: each comes
// after those that its table names.
func (a *Assembled) Tree(o TreeOptions) ([]Device, []Skipped, error) {
	switch {
	case a.Err != nil:
		return nil, nil, fmt.Errorf("%w: %w", errUnusable, a.Err)
	case a.Exported():
		return nil, nil, fmt.Errorf("%w: it is exported; import it first (vgimport)", errUnusable)
	}
	t := &tree{Assembled: a, options: o, made: map[string]bool{}}
	volumes, err := t.chosen()
	for _, l := range volumes {
		t.activate(l)
	}
	return t.devices, t.skipped, err
}

// tree is a list of devices being built.
type tree struct {
	*Assembled
	options TreeOptions
	devices []Device
	made    map[string]bool // names of devices
	skipped []Skipped
}

// chosen returns the volumes to activate.
func (t *tree) chosen() (ls []*LV, err error) {
	if t.options.Only == nil {
		for _, l := range t.LVs {
			if l.Visible() {
				ls = append(ls, l)
			}
		}
		return ls, nil
	}
	for _, name := range t.options.Only {
		l := t.lvs[name]
		if l == nil || !l.Visible() {
			return nil, fmt.Errorf("the group %s has no volume %q", t.Name, name)
		}
		ls = append(ls, l)
	}
	return ls, nil
}

// activate adds the devices of a volume, or records why it has none.
func (t *tree) activate(l *LV) {
	err := t.may(l)
	if err == nil {
		n := len(t.devices)
		if err = t.user(l); err != nil {
			for _, d := range t.devices[n:] {
				delete(t.made, d.Name)
			}
			t.devices = t.devices[:n]
		}
	}
	if err != nil {
		t.skipped = append(t.skipped, Skipped{l.Name, err})
	}
}

func (t *tree) may(l *LV) error {
	if l.SkipsActivation() && !t.options.Skip {
		return errors.New("it is activated only on request")
	}
	if !t.options.Partial && t.Partial(l) {
		return errors.New("part of it is on a missing disk")
	}
	return nil
}

// user adds the device that users of a volume open, and everything below it.
func (t *tree) user(l *LV) error {
	if l.snapshot != nil { // with its origin, which makes all its snapshots
		return t.user(t.lvs[l.snapshot.Segments[0].Kind.(*Snapshot).Origin])
	}
	switch k := l.Segments[0].Kind.(type) {
	case *ThinPool:
		return t.poolUser(l, k)
	case *Snapshot, *CachePool, *VDOPool:
		return fmt.Errorf("a volume of type %s has no device of its own", l.Segments[0].Type)
	}
	switch {
	case len(l.snapshots) > 0:
		return t.origin(l)
	case t.external(l):
		return t.over(l, "", l.Writable())
	}
	return t.plain(l, "")
}

// layerOf adds the layer of a volume that other volumes use, and returns its name.
func (t *tree) layerOf(name string) (string, error) {
	l := t.lvs[name]
	layer := ""
	switch _, pool := l.Segments[0].Kind.(*ThinPool); {
	case pool:
		return t.pool(l)
	case len(l.snapshots) > 0 || t.external(l):
		layer = "real"
	}
	return "/dev/mapper/" + DeviceName(t.Name, name, layer), t.plain(l, layer)
}

// external reports whether thin volumes have l as their external origin.
func (t *tree) external(l *LV) bool {
	return slices.ContainsFunc(t.LVs, func(v *LV) bool {
		k, ok := v.Segments[0].Kind.(*Thin)
		return ok && k.External == l.Name
	})
}

// add adds a device unless it exists.
func (t *tree) add(l *LV, layer, suffix string, writable bool, table func() ([]Line, error)) error {
	name := DeviceName(t.Name, l.Name, layer)
	if t.made[name] {
		return nil
	}
	if len(name) > maxName {
		return fmt.Errorf("the device name %s is too long", name)
	}
	lines, err := table()
	if err != nil {
		return err
	}
	t.made[name] = true
	t.devices = append(t.devices, Device{name, DeviceUUID(t.ID, l.ID, suffix), l.Name, !writable || t.options.ReadOnly && suffix != poolLayer, lines})
	return nil
}

// plain adds a device with the volume's own segments.
func (t *tree) plain(l *LV, layer string) error {
	suffix := layer
	if layer == "" {
		suffix = t.suffix(l)
	}
	return t.add(l, layer, suffix, l.Writable(), func() ([]Line, error) { return t.segments(l) })
}

// over adds a linear device over another layer of its volume.
func (t *tree) over(l *LV, suffix string, writable bool) error {
	below, err := t.layerOf(l.Name)
	if err != nil {
		return err
	}
	return t.add(l, "", suffix, writable, func() ([]Line, error) { return whole(t.sectors(l), linearLine(below, 0)), nil })
}

// poolLayer is the suffix of a pool's device. The device is writable even if the pool
// is read-only, because the target requires it.
const poolLayer = "tpool"

func whole(n uint64, line dm.Line) []Line { return []Line{{0, n, line}} }

func (t *tree) sectors(l *LV) uint64 { return l.Extents() * t.ExtentSize }

// suffix is the uuid suffix of a volume that is part of another one.
func (t *tree) suffix(l *LV) string {
	for _, v := range t.LVs {
		if suffix := suffixes(v.Segments[0].Kind)[l.Name]; suffix != "" {
			return suffix
		}
	}
	return ""
}

// suffixes are the uuid suffixes of the parts of a volume, by name.
func suffixes(k Kind) map[string]string {
	switch k := k.(type) {
	case *ThinPool:
		return map[string]string{k.Metadata: "tmeta", k.Data: "tdata"}
	case *CachePool:
		return map[string]string{k.Metadata: "cmeta", k.Data: "cdata"}
	case *Cache:
		return map[string]string{k.Origin: "real", k.Pool: "cvol"}
	case *Writecache:
		return map[string]string{k.Origin: "real", k.Cache: "cvol"}
	}
	return nil
}
