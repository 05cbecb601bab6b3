package server

import (
	"fmt"
	"os"

	"udm/dm"
	"udm/export"
)

// numbered are the files below what is attached: their names are numbers of
// devices, which no rename changes.
type numbered struct{ exports }

func (numbered) name(minor uint32) string { return fmt.Sprintf("dm-%d", minor) }

// device is the device behind the name of a file.
func (x numbered) device(name string) (*dm.Device, error) {
	var minor uint32
	if n, _ := fmt.Sscanf(name, "dm-%d", &minor); n != 1 || x.name(minor) != name {
		return nil, os.ErrNotExist
	}
	return x.server.control.Number(dm.Number{Major: dm.Major, Minor: minor})
}

// List implements [export.Exports].
func (x numbered) List() []export.Info {
	infos := make([]export.Info, 0)
	for _, d := range x.server.control.List() {
		if i, ok := x.Find(x.name(d.Number().Minor)); ok {
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
	i, ok := x.info(d)
	i.Name = name
	return i, ok
}

// Open implements [export.Exports].
func (x numbered) Open(name string) (*export.Export, error) {
	d, err := x.device(name)
	if err != nil {
		return nil, os.ErrNotExist
	}
	return x.open(d)
}
