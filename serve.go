package udm

import (
	"context"
	"errors"
	"io/fs"
	"net"

	"udm/export"
	"udm/export/nbd"
)

// server is one listener.
type server struct {
	nbd   *nbd.Server
	ended chan error // what Serve returned
}

// ServeNBD offers the devices of the stack to the NBD clients that come from l,
// each under its name, those of devices that are made later too. It returns at
// once. The listener is the stack's from now on, which serves it until Close.
func (s *Stack) ServeNBD(l net.Listener) error {
	n, err := nbd.New(nbd.Config{Exports: exports{s}, Env: s.env})
	if err != nil {
		return errors.Join(err, l.Close())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return errors.Join(errClosed, l.Close())
	}
	v := &server{nbd: n, ended: make(chan error, 1)}
	s.servers = append(s.servers, v)
	go func() { v.ended <- n.Serve(l) }()
	return nil
}

// ListenNBD is ServeNBD at a Unix socket, which it makes at path. Clients find
// the device NAME at nbd+unix:///NAME?socket=PATH, and one that is alone by the
// empty name, too.
func (s *Stack) ListenNBD(path string) error {
	l, err := net.Listen("unix", path)
	if err != nil {
		return err
	}
	return s.ServeNBD(l)
}

// close lets what clients have asked for be answered.
func (v *server) close() error {
	err := v.nbd.Shutdown(context.Background())
	if ended := <-v.ended; !errors.Is(ended, nbd.ErrClosed) {
		err = errors.Join(err, ended)
	}
	return err
}

// exports are the devices of a stack. A client counts as a user of its device.
type exports struct{ s *Stack }

// List implements [export.Exports].
func (x exports) List() (infos []export.Info) {
	x.s.mu.Lock()
	defer x.s.mu.Unlock()
	for _, d := range x.s.devices {
		infos = append(infos, d.info())
	}
	return infos
}

// Find implements [export.Exports].
func (x exports) Find(name string) (export.Info, bool) {
	d, ok := x.s.Device(name)
	if !ok {
		return export.Info{}, false
	}
	return d.info(), true
}

// Open implements [export.Exports].
func (x exports) Open(name string) (*export.Export, error) {
	d, ok := x.s.Device(name)
	if !ok {
		return nil, fs.ErrNotExist
	}
	i := d.info()
	h, err := d.dm.Open(!i.ReadOnly)
	if err != nil {
		return nil, err
	}
	return &export.Export{
		Info: i, Device: export.Check(h), Extents: d.dm.Extents,
		Release: func() { _ = h.Close() }, // gives the open back; it cannot fail
	}, nil
}

func (d *Device) info() export.Info {
	l := d.Limits()
	return export.Info{Name: d.Name(), Description: "udm device " + d.dm.Number().String(), Size: l.Size, ReadOnly: l.ReadOnly}
}
