package exports

import (
	"fmt"
	"io/fs"

	"udm/dm"
	"udm/export"
)

// numbered are exports under device numbers, which no rename changes.
type numbered struct{ Set }

// Numbered returns a device's name by number: dm-MINOR.
func Numbered(minor uint32) string { return fmt.Sprintf("dm-%d", minor) }

// again opens a device under a name that lasts.
func (s Set) again(d *dm.Device, name string) (*export.Export, error) {
	e, err := s.open(d)
	if err == nil {
		e.Again = func() string { return name }
	}
	return e, err
}

// device returns the device with such a name.
func (x numbered) device(name string) (*dm.Device, error) {
	var minor uint32
	if n, _ := fmt.Sscanf(name, "dm-%d", &minor); n != 1 || Numbered(minor) != name {
		return nil, fs.ErrNotExist
	}
	return x.Control.Number(dm.Number{Major: dm.Major, Minor: minor})
}

// List implements [export.Exports].
func (x numbered) List() []export.Info {
	infos := make([]export.Info, 0)
	for _, d := range x.Control.List() {
		if i, ok := x.Find(Numbered(d.Number().Minor)); ok {
			infos = append(infos, i)
		}
	}
	return infos
}

// Find implements [export.Exports].
func (x numbered) Find(name string) (export.Info, bool) {
	d, err := x.device(name)
	if err != nil {
		return export.Info{}, false
	}
	x.await(d)
	i, ok := x.info(d)
	i.Name = name
	return i, ok
}

// Open implements [export.Exports].
func (x numbered) Open(name string) (*export.Export, error) {
	d, err := x.device(name)
	if err != nil {
		return nil, fs.ErrNotExist
	}
	return x.again(d, name)
}
