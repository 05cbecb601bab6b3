//go:build !linux

package vhost

import (
	"context"
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

// Listen always fails.
func (s *Server) Listen(l *net.UnixListener) (accept func() error) {
	return func() error { return s.Serve(l) }
}

// Clients returns no clients.
func (*Server) Clients() []export.Client { return nil }

// Close does nothing.
func (*Server) Close() error { return nil }

// Changed does nothing.
func (*Server) Changed() {}

// Hand does nothing.
func (*Server) Hand(context.Context) (*Moved, error) { return nil, nil }

// Take always fails.
func (*Server) Take(m *Moved) (func(), error) {
	m.Close()
	return func() {}, errNotHere
}
