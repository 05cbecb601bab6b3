package vhostuser

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"slices"
	"sync"

	"udm/ctl/server/handover"
	"udm/export/vhost"
)

// movedSocket is an export in a bundle: files for its listening sockets, and the others.
type movedSocket struct {
	Path             string
	Listeners, Files int
	*vhost.Moved
}

// Calm implements frontend.Mover. New virtual machines are left to the other process with
// the group of their device, since a device has one of them only.
func (s *Sockets) Calm(context.Context, *handover.Bundle) error { return nil }

// Hand implements frontend.Mover.
func (s *Sockets) Hand(ctx context.Context, b *handover.Bundle, g handover.Group) error {
	list := s.among(g)
	moved, errs := make([]*vhost.Moved, len(list)), make([]error, len(list))
	var all sync.WaitGroup
	for i, x := range list {
		all.Go(func() { moved[i], errs[i] = x.server.Hand(ctx) })
	}
	all.Wait()
	err := errors.Join(errs...)
	if err == nil {
		return s.put(b, list, moved)
	}
	back := new(handover.Bundle)
	err = errors.Join(err, s.put(back, list, moved))
	serve, berr := s.More(back)
	serve()
	return errors.Join(err, berr)
}

// among returns the sockets of a group that are served.
func (s *Sockets) among(g handover.Group) (list []*socket) {
	s.op.Lock()
	defer s.op.Unlock()
	for _, path := range slices.Sorted(maps.Keys(s.list)) {
		if x := s.list[path]; x.server != nil && g.Has(x.Minor) {
			list = append(list, x)
		}
	}
	return list
}

func (s *Sockets) put(b *handover.Bundle, list []*socket, moved []*vhost.Moved) error {
	var parts []movedSocket
	var files []*os.File
	for i, m := range moved {
		if m != nil {
			parts = append(parts, movedSocket{list[i].Path, len(m.Listeners), len(m.Files), m})
			files = append(append(files, m.Listeners...), m.Files...)
		}
	}
	if parts == nil {
		return nil
	}
	return b.Put(s.Name(), parts, files...)
}

// Take implements frontend.Mover.
func (s *Sockets) Take(b *handover.Bundle) error {
	serve, err := s.More(b)
	s.op.Lock()
	defer s.op.Unlock()
	s.taken = append(s.taken, serve)
	return err
}

// More implements frontend.Divider.
func (s *Sockets) More(b *handover.Bundle) (serve func(), err error) {
	var serves []func()
	serve = func() {
		for _, begin := range serves {
			begin()
		}
	}
	var parts []movedSocket
	files, _, err := b.Take(s.Name(), &parts)
	if err != nil {
		return serve, err
	}
	s.op.Lock()
	defer s.op.Unlock()
	for _, m := range parts {
		if m.Moved == nil || m.Listeners < 0 || m.Files < 0 || m.Listeners+m.Files > len(files) {
			return serve, errors.New("the sockets of virtual machines were not handed over")
		}
		m.Moved.Listeners, m.Moved.Files = files[:m.Listeners], files[m.Listeners:][:m.Files]
		files = files[m.Listeners+m.Files:]
		x := s.list[m.Path]
		if x == nil {
			m.Close()
			return serve, fmt.Errorf("%s is not exported here", m.Path)
		}
		begin, err := x.take(s, m.Moved)
		if err != nil {
			return serve, fmt.Errorf("%s: %w", m.Path, err)
		}
		serves = append(serves, begin)
	}
	return serve, nil
}

// take makes the socket's server of what another one has left; begin serves it.
func (x *socket) take(s *Sockets, m *vhost.Moved) (begin func(), err error) {
	defer m.Close()
	if len(m.Listeners) != 1 {
		return nil, errors.New("its socket was not handed over")
	}
	l, err := net.FileListener(m.Listeners[0])
	if err != nil {
		return nil, err
	}
	u, ok := l.(*net.UnixListener)
	if !ok {
		l.Close()
		return nil, errors.New("what was handed over is no Unix socket")
	}
	server, err := x.newServer(s)
	if err != nil {
		l.Close()
		return nil, err
	}
	serve, err := server.Take(m)
	if err != nil {
		l.Close()
		return nil, err
	}
	x.server, x.served, x.problem = server, make(chan struct{}), ""
	return func() {
		x.accept(s, u)
		serve()
	}, nil
}
