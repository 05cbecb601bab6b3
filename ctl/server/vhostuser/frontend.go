package vhostuser

import (
	"context"
	"maps"
	"slices"
	"sync"

	"udm/ctl"
)

// Name implements [frontend.Server].
func (s *Sockets) Name() string { return "vhost-user" }

// Start implements [frontend.Server]. An export that cannot be served is logged and
// tried again.
func (s *Sockets) Start(func(error)) error {
	s.op.Lock()
	s.started = true
	taken := s.taken
	s.taken = nil
	s.op.Unlock()
	for _, serve := range taken {
		serve()
	}
	s.Retry()
	return nil
}

// Status implements [frontend.Server].
func (s *Sockets) Status() ctl.FrontEnd {
	s.op.Lock()
	defer s.op.Unlock()
	out := ctl.FrontEnd{Name: s.Name()}
	for _, path := range slices.Sorted(maps.Keys(s.list)) {
		x := s.list[path]
		if x.server == nil || !s.lives(x) {
			continue
		}
		out.Exports++
		out.Addresses = append(out.Addresses, path)
		for _, c := range x.clients() {
			out.Clients = append(out.Clients, ctl.FrontEndClient{Address: path, Device: x.device.Name(), ReadOnly: c.ReadOnly})
		}
	}
	return out
}

// Drain implements [frontend.Server]. It takes no more requests, waits for those in
// progress, and disconnects the virtual machines, which keep other requests and send
// them to the next daemon.
func (s *Sockets) Drain(context.Context) error { return s.Close() }

// Close implements [frontend.Server].
func (s *Sockets) Close() error {
	s.op.Lock()
	s.over = true
	list := slices.Collect(maps.Values(s.list))
	s.op.Unlock()
	var all sync.WaitGroup
	for _, x := range list {
		all.Go(x.close)
	}
	all.Wait()
	s.ending.Wait()
	return nil
}
