package server

import (
	"context"
	"errors"
	"net"

	"udm/ctl"
	"udm/export"
	"udm/export/nbd"
)

// nbdServer is the front end of an NBD server on one socket.
type nbdServer struct {
	name    string
	listen  func() (net.Listener, error)
	exports export.Exports
	server  *nbd.Server
	address string
	served  chan struct{} // closed when the socket is closed
}

// newNBD returns an NBD server on the socket that listen opens.
func newNBD(name string, listen func() (net.Listener, error), c nbd.Config) (*nbdServer, error) {
	s, err := nbd.New(c)
	return &nbdServer{name: name, listen: listen, exports: c.Exports, server: s, served: make(chan struct{})}, err
}

func (n *nbdServer) Name() string { return n.name }

func (n *nbdServer) Start(fail func(error)) error {
	l, err := n.listen()
	if err != nil {
		return err
	}
	n.address = l.Addr().String()
	go func() {
		defer close(n.served)
		if err := n.server.Serve(l); !errors.Is(err, nbd.ErrClosed) {
			fail(err)
		}
	}()
	return nil
}

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
