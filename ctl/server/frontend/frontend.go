// Package frontend is what the ways in to a daemon's devices have in common, so that
// the daemon starts, lists and ends them alike. One that is added is one more entry
// of the list that package ctl/server makes.
//
//	made ── Start ──► serving ── Drain ──► drained
//	                     └────── Close ──────┘ (at once)
//
// List.mu is a leaf: no method of a Server is called under it.
package frontend

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"udm/ctl"
)

// Server is a front end: it serves devices, or commands about them. Its methods are
// called from several goroutines, but Start before the others.
type Server interface {
	Name() string
	// Start begins to serve and returns when clients can come. What makes it end
	// later, other than Drain and Close, is given to fail, once.
	Start(fail func(error)) error
	// Status tells what it serves at the moment, and to whom.
	Status() ctl.FrontEnd
	// Drain takes no more clients, lets what is under way finish, and cuts off
	// who is left when ctx ends. When it returns nobody is served any more; the
	// error tells of who was cut off.
	Drain(ctx context.Context) error
	// Close is Drain without patience.
	Close() error
}

// List is front ends in the order in which they are started.
type List struct {
	mu      sync.Mutex
	servers []Server        // guarded by mu; those that have started
	ended   map[string]bool // guarded by mu; by name
}

// Start starts servers in their order. When one fails, those of this call that have
// started are closed.
func (l *List) Start(fail func(error), servers ...Server) error {
	for i, s := range servers {
		name := s.Name()
		err := s.Start(func(err error) { fail(fmt.Errorf("%s: %w", name, err)) })
		if err != nil {
			for _, started := range servers[:i] {
				err = errors.Join(err, started.Close())
			}
			return err
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.servers = append(l.servers, servers...)
	return nil
}

func (l *List) started() []Server {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.servers[:len(l.servers):len(l.servers)]
}

// Status tells what all of them serve.
func (l *List) Status() []ctl.FrontEnd {
	all := make([]ctl.FrontEnd, 0)
	for _, s := range l.started() {
		all = append(all, s.Status())
	}
	return all
}

// Drain drains all of them side by side and returns when the last one has ended.
func (l *List) Drain(ctx context.Context) error {
	return l.each(func(s Server) error { return s.Drain(ctx) })
}

// Close ends all of them at once.
func (l *List) Close() error { return l.each(Server.Close) }

func (l *List) each(do func(Server) error) error {
	servers := l.started()
	errs := make([]error, len(servers))
	var all sync.WaitGroup
	for i, s := range servers {
		all.Go(func() {
			if err := do(s); err != nil {
				errs[i] = fmt.Errorf("%s: %w", s.Name(), err)
			}
			l.noteEnded(s)
		})
	}
	all.Wait()
	return errors.Join(errs...)
}

func (l *List) noteEnded(s Server) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended == nil {
		l.ended = make(map[string]bool)
	}
	l.ended[s.Name()] = true
}

// Unfinished are the names of those that Drain or Close still waits for.
func (l *List) Unfinished() (names []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.servers {
		if !l.ended[s.Name()] {
			names = append(names, s.Name())
		}
	}
	return names
}
