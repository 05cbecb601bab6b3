// Package exports offers the devices of a set to clients: every device with a live
// table is an export, under its name, or under its number, which no rename changes. A
// device counts as open while a client is connected.
package exports

import (
	"errors"
	"fmt"
	"io/fs"
	"syscall"

	"udm/dm"
	"udm/export"
)

// Set offers the devices of a Control as exports.
type Set struct {
	Control *dm.Control
	// Waiting returns why the saved table of a device could not be loaded yet, or "".
	Waiting func(*dm.Device) string
	// Await waits until another process has handed a device over, if it is to do so; Away
	// reports that. nil: no process is to.
	Await func(*dm.Device)
	Away  func(*dm.Device) bool
	// Contexts lists what clients may query about a device's sectors besides its
	// allocation map; nil: nothing.
	Contexts func(*dm.Device) []export.Context
	ReadOnly bool      // refuse writes
	Holder   dm.Holder // recorded as the holder of open devices
}

// For returns the same set for another kind of clients.
func (s Set) For(who dm.Holder) Set {
	s.Holder = who
	return s
}

// ByName offers the devices under their names. If there is only one device, the empty
// name is an alias for it.
func (s Set) ByName() export.Exports { return named{s} }

// ByNumber offers the devices as dm-MINOR.
func (s Set) ByNumber() export.Exports { return numbered{s} }

func (s Set) await(d *dm.Device) {
	if s.Await != nil {
		s.Await(d)
	}
}

func (s Set) info(d *dm.Device) (export.Info, bool) {
	st := d.Status()
	return export.Info{Name: st.Name, Description: "udm device " + st.Number.String(),
		Size: st.Sectors, ReadOnly: s.ReadOnly || st.ReadOnly}, st.Live
}

func (s Set) open(d *dm.Device) (*export.Export, error) {
	s.await(d)
	if !d.Status().Live {
		return nil, s.noTable(d)
	}
	readOnly := s.ReadOnly
	dev, err := d.OpenFor(s.Holder, !readOnly)
	if errors.Is(err, syscall.EACCES) {
		readOnly = true
		dev, err = d.OpenFor(s.Holder, false)
	}
	if err != nil {
		return nil, err
	}
	e := &export.Export{
		Info: export.Info{Name: d.Name(), ReadOnly: readOnly}, Device: export.Check(dev), Extents: d.Extents, Uncommitted: d.Uncommitted, Same: d,
		Release: func() { _ = dev.Close() }, // closes the device; this cannot fail
	}
	if s.Contexts != nil {
		e.Contexts = func() []export.Context { return s.Contexts(d) }
	}
	return e, nil
}

// noTable says why a device without a live table is not exported. (The kernel creates
// the disk with the first table, too.)
func (s Set) noTable(d *dm.Device) error {
	if why := s.Waiting(d); why != "" {
		return fmt.Errorf("the table of %s is not loaded yet: %s", d.Name(), why)
	}
	return fs.ErrNotExist
}

// Of offers one device only, as dm-MINOR whatever its name.
func (s Set) Of(d *dm.Device) export.Exports { return single{s, d} }

// named are exports under device names.
type named struct{ Set }

// List implements [export.Exports].
func (x named) List() []export.Info {
	infos := make([]export.Info, 0)
	for _, d := range x.Control.List() {
		x.await(d)
		if i, ok := x.info(d); ok {
			infos = append(infos, i)
		}
	}
	return infos
}

// Find implements [export.Exports].
func (x named) Find(name string) (export.Info, bool) {
	d, err := x.Control.Name(name)
	if err != nil {
		return export.Info{}, false
	}
	x.await(d)
	return x.info(d)
}

// Open implements [export.Exports].
func (x named) Open(name string) (*export.Export, error) {
	d, err := x.Control.Name(name)
	if err != nil {
		return nil, fs.ErrNotExist
	}
	e, err := x.open(d)
	if err == nil {
		e.Again = d.Name
	}
	return e, err
}
