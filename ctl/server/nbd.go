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
	fail     func(error)
	listener net.Listener // set by Start
	kept     *os.File     // another descriptor of it, set by Calm
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
	n.fail = fail
	n.serve(l)
	for _, serve := range n.clients {
		serve()
	}
	return nil
}

func (n *nbdServer) serve(l net.Listener) {
	n.address, n.listener, n.served = l.Addr().String(), l, make(chan struct{})
	go func() {
		defer close(n.served)
		if err := n.server.Serve(l); !errors.Is(err, nbd.ErrClosed) {
			n.fail(err)
		}
	}()
}

// Calm implements frontend.Mover.
func (n *nbdServer) Calm(ctx context.Context) {
	if n.kept, _ = frontend.Keep(n.listener); n.kept == nil {
		return // Hand says so
	}
	n.server.Settle(ctx)
	<-n.served
}

// Hand implements frontend.Mover.
func (n *nbdServer) Hand(ctx context.Context, b *handover.Bundle) error {
	if n.kept == nil {
		return errors.New("the socket cannot be handed over")
	}
	moved, err := n.server.Hand(ctx)
	if err != nil {
		l, lerr := frontend.Listen([]*os.File{n.kept}, n.managed)
		if lerr == nil {
			n.serve(l)
		}
		return errors.Join(err, lerr)
	}
	files := []*os.File{n.kept}
	for _, m := range moved {
		files = append(files, m.Socket)
	}
	return b.Put(n.name, moved, files...)
}

// Take implements frontend.Mover.
func (n *nbdServer) Take(b *handover.Bundle) error {
	var moved []nbd.Moved
	files, ok, err := b.Take(n.name, &moved)
	if !ok || err != nil {
		return err
	}
	if n.taken, err = frontend.Listen(files, n.managed); err == nil && len(files) != len(moved)+1 {
		err = errors.New("sockets were not handed over")
	}
	if err != nil {
		return err
	}
	for i, m := range moved {
		m.Socket = files[i+1]
		serve, err := n.server.Take(m)
		if err != nil {
			return err
		}
		n.clients = append(n.clients, serve)
	}
	return nil
}

// Linger returns when nobody needs this process any more after Hand.
func (n *nbdServer) Linger() { n.server.Relaying() }

func (n *nbdServer) Status() ctl.FrontEnd {
	out := ctl.FrontEnd{Name: n.name, Addresses: []string{n.address}, Exports: len(n.exports.List())}
	for _, c := range n.server.Clients() {
		out.Clients = append(out.Clients, ctl.FrontEndClient{Address: c.Address, Device: c.Export, ReadOnly: c.ReadOnly})
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
