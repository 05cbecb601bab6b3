package exports

import (
	"io/fs"

	"udm/dm"
	"udm/export"
)

// single is one device, even if its number is later given to another.
type single struct {
	Set
	device *dm.Device
}

// List implements [export.Exports].
func (x single) List() []export.Info {
	if i, ok := x.Find(Numbered(x.device.Number().Minor)); ok {
		return []export.Info{i}
	}
	return nil
}

// Find implements [export.Exports].
func (x single) Find(name string) (export.Info, bool) {
	i, ok := x.info(x.device)
	i.Name = name
	return i, ok && name == Numbered(x.device.Number().Minor)
}

// Open implements [export.Exports].
func (x single) Open(name string) (*export.Export, error) {
	if name != Numbered(x.device.Number().Minor) {
		return nil, fs.ErrNotExist
	}
	return x.again(x.device, name)
}
