//go:build !linux

package vhost

import (
	"errors"
	"net"

	"udm/export"
)

// Server is not there: vhost-user needs eventfds and memfds.
type Server struct{}

var errNotHere = errors.New("vhost-user works on Linux only")

// New fails.
func New(cfg Config) (*Server, error) {
	cfg.setDefaults(1)
	return nil, errNotHere
}

// Serve fails.
func (*Server) Serve(l *net.UnixListener) error {
	l.Close()
	return errNotHere
}

// Clients are none.
func (*Server) Clients() []export.Client { return nil }

// Close does nothing.
func (*Server) Close() error { return nil }

// Changed does nothing.
func (*Server) Changed() {}
