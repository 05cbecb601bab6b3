package server

import (
	"context"
	"errors"
	"net"
	"os"
	"slices"

	"udm/ctl"
	"udm/ctl/server/frontend"
	"udm/ctl/server/handover"
	"udm/dm"
	"udm/export"
	"udm/export/nbd"
)

// nbdServer is the front end of an NBD server on one socket.
type nbdServer struct {
	name    string
	listen  func() (net.Listener, error)
	exports export.Exports
	server  *nbd.Server
	managed bool // the socket is the service manager's
	address string
	served  chan struct{} // closed when the socket is closed

	taken    net.Listener // handed over by another process
	clients  []func()     // begin to serve connections that were
	listener net.Listener // set by Start
}

// newNBD returns an NBD server on the socket that listen opens.
func (d *daemon) newNBD(name string, listen func() (net.Listener, error), c nbd.Config) (*nbdServer, error) {
	s, err := nbd.New(c)
	return &nbdServer{name: name, listen: listen, exports: c.Exports, server: s, managed: slices.Contains(d.managed, name)}, err
}

func (n *nbdServer) Name() string { return n.name }

func (n *nbdServer) Start(fail func(error)) error {
	l, err := n.taken, error(nil)
	if l == nil {
		l, err = n.listen()
	}
	if err != nil {
		return err
	}
	n.address, n.listener, n.served = l.Addr().String(), l, make(chan struct{})
	go func() {
		defer close(n.served)
		if err := n.server.Serve(l); !errors.Is(err, nbd.ErrClosed) {
			fail(err)
		}
	}()
	for _, serve := range n.clients {
		serve()
	}
	n.taken, n.clients = nil, nil
	return nil
}

// Calm implements frontend.Mover.
func (n *nbdServer) Calm(ctx context.Context, b *handover.Bundle) error {
	if err := frontend.PutSocket(b, n.name, n.listener); err != nil {
		return err
	}
	n.server.Settle(ctx)
	<-n.served
	return nil
}

// Hand implements frontend.Mover.
func (n *nbdServer) Hand(ctx context.Context, b *handover.Bundle, g handover.Group) error {
	moved, err := n.server.Hand(ctx, func(x *nbd.Export) bool {
		d, ok := x.Same.(*dm.Device)
		return !ok || g.Has(d.Number().Minor)
	})
	if err != nil || len(moved) == 0 {
		return err
	}
	var files []*os.File
	for _, m := range moved {
		files = append(files, m.Socket)
	}
	return b.Put(n.clientsPart(), moved, files...)
}

func (n *nbdServer) clientsPart() string { return n.name + " clients" }

// Take implements frontend.Mover.
func (n *nbdServer) Take(b *handover.Bundle) error {
	l, err := frontend.TakeSocket(b, n.name, n.managed)
	if l != nil {
		n.taken = l
	}
	if err != nil {
		return err
	}
	serve, err := n.More(b)
	n.clients = append(n.clients, serve)
	return err
}

// More implements frontend.Divider.
func (n *nbdServer) More(b *handover.Bundle) (serve func(), err error) {
	n.server.Reopen() // in the process that hands over, it is calm
	var serves []func()
	serve = func() {
		for _, s := range serves {
			s()
		}
	}
	var moved []nbd.Moved
	files, _, err := b.Take(n.clientsPart(), &moved)
	if err == nil && len(files) != len(moved) {
		err = errors.New("sockets were not handed over")
	}
	if err != nil {
		return serve, err
	}
	for i, m := range moved {
		m.Socket = files[i]
		one, err := n.server.Take(m)
		if err != nil {
			return serve, err
		}
		serves = append(serves, one)
	}
	return serve, nil
}

// Linger returns when nobody needs this process any more after Hand.
func (n *nbdServer) Linger() { n.server.Relaying() }

func (n *nbdServer) Status() ctl.FrontEnd {
	out := ctl.FrontEnd{Name: n.name, Addresses: []string{n.address}, Exports: len(n.exports.List())}
	for _, c := range n.server.Clients() {
		out.Clients = append(out.Clients, ctl.FrontEndClient{Address: c.Address, Device: c.Export, ReadOnly: c.ReadOnly, Stalled: uint64(c.Stalled.Seconds())})
	}
	return out
}

func (n *nbdServer) Drain(ctx context.Context) error {
	err := n.server.Shutdown(ctx)
	<-n.served
	return err
}

func (n *nbdServer) Close() error {
	err := n.server.Close()
	<-n.served
	return err
}
