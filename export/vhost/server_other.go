//go:build !linux

package vhost

import (
	"errors"
	"net"

	"udm/export"
)

// Server is not supported: vhost-user needs eventfds and memfds.
type Server struct{}

var errNotHere = errors.New("vhost-user is supported on Linux only")

// New always fails.
func New(cfg Config) (*Server, error) {
	cfg.setDefaults(1)
	return nil, errNotHere
}

// Serve always fails.
func (*Server) Serve(l *net.UnixListener) error {
	l.Close()
	return errNotHere
}

// Clients returns no clients.
func (*Server) Clients() []export.Client { return nil }

// Close does nothing.
func (*Server) Close() error { return nil }

// Changed does nothing.
func (*Server) Changed() {}
