package server

import (
	"errors"
	"fmt"
	"io/fs"
	"syscall"

	"udm/dm"
	"udm/export"
)

// exports offers every device that has a live table under its own name. A client
// counts as open while it is attached. An empty name is a device too if there is
// just one.
type exports struct {
	server   *Server
	readOnly bool
}

// List implements [export.Exports].
func (x exports) List() []export.Info {
	infos := make([]export.Info, 0)
	for _, d := range x.server.control.List() {
		if i, ok := x.info(d); ok {
			infos = append(infos, i)
		}
	}
	return infos
}

// Find implements [export.Exports].
func (x exports) Find(name string) (export.Info, bool) {
	d, err := x.server.control.Name(name)
	if err != nil {
		return export.Info{}, false
	}
	return x.info(d)
}

func (x exports) info(d *dm.Device) (export.Info, bool) {
	st := d.Status()
	return export.Info{Name: st.Name, Description: "udm device " + st.Number.String(),
		Size: st.Sectors, ReadOnly: x.readOnly || st.ReadOnly}, st.Live
}

// Open implements [export.Exports].
func (x exports) Open(name string) (*export.Export, error) {
	d, err := x.server.control.Name(name)
	if err != nil {
		return nil, fs.ErrNotExist
	}
	return x.open(d)
}

func (x exports) open(d *dm.Device) (*export.Export, error) {
	if !d.Status().Live {
		return nil, x.server.noTable(d)
	}
	readOnly := x.readOnly
	dev, err := d.Open(!readOnly)
	if errors.Is(err, syscall.EACCES) {
		readOnly = true
		dev, err = d.Open(false)
	}
	if err != nil {
		return nil, err
	}
	return &export.Export{
		Info: export.Info{Name: d.Name(), ReadOnly: readOnly}, Device: dev, Extents: d.Extents,
		Release: func() { _ = dev.Close() }, // gives the open count back; it cannot fail
	}, nil
}

// noTable is why a device without a live table is not exported. The kernel
// makes no disk before the first table is loaded.
func (s *Server) noTable(d *dm.Device) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if why := s.keeperLocked(d).reason; why != "" {
		return fmt.Errorf("the table of %s could not be loaded yet: %s", d.Name(), why)
	}
	return fs.ErrNotExist
}
