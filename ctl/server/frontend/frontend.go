// Package frontend is what all front ends of the daemon have in common, so that the
// daemon starts, lists and stops them alike. To add one, add an entry to the list in
// package ctl/server.
//
//	new ── Start ──► serving ── Drain ──► drained
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
	"udm/ctl/server/handover"
)

// Server is a front end: it serves devices, or commands on them. Start is called
// first; the other methods may be called from several goroutines.
type Server interface {
	Name() string
	// Start starts serving and returns when clients can connect. An error that ends
	// it later, other than by Drain and Close, is passed to fail, once.
	Start(fail func(error)) error
	// Status reports what it serves at the moment, and to whom.
	Status() ctl.FrontEnd
	// Drain accepts no more clients, lets requests in progress finish, and
	// disconnects the remaining clients when ctx ends. When it returns nobody is
	// served; the error names who was disconnected.
	Drain(ctx context.Context) error
	// Close is Drain without waiting.
	Close() error
}

// Mover is a front end that can be handed to another process, so that clients notice
// nothing: see package handover. One that is no Mover is left to be started anew there.
//
//	serving ── Calm ──► takes no new clients ── Hand ──► handed over
//	   ▲                                         └─ error ──► serves on, without new clients
//	   └── Start ── Take ◄── new
//
// Calm is called for all front ends side by side, then Hand, and in the next process Take, each
// with one bundle for all and in no order among them. A process that gives back calls Hand of one
// beside Calm of others. So what front ends share is guarded, and each adds to it what it has
// taken, whoever was first. Start follows when Take has returned for all, one after the other, as
// More does.
type Mover interface {
	Server
	// Calm takes no new clients, puts the socket at which they come into a bundle, and lets
	// those finish that cannot be handed over, until ctx ends. The others are served.
	Calm(ctx context.Context, b *handover.Bundle) error
	// Hand stops serving the clients of a group of devices, or all if they cannot be
	// divided, and puts all that is needed to go on into a bundle. If what is under way
	// does not end before ctx, it serves on.
	Hand(ctx context.Context, b *handover.Bundle, g handover.Group) error
	// Take takes out of a bundle what Calm and Hand have put there, if they did, before
	// Start.
	Take(b *handover.Bundle) error
}

// Divider is a Mover that can hand over the clients of one group of devices after the other.
// If Calm or Hand have failed for others, Take and Start undo both.
type Divider interface {
	Mover
	// More takes out of a bundle what a later Hand has put there, after Start. serve
	// serves it.
	More(b *handover.Bundle) (serve func(), err error)
}

// List is the front ends in the order in which they are started.
type List struct {
	mu      sync.Mutex
	servers []Server        // guarded by mu; those started
	ended   map[string]bool // guarded by mu; by name
}

// Start starts servers in order. If one fails, those started by this call are closed.
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

// Replace replaces started front ends, after others were handed over.
func (l *List) Replace(servers []Server) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.servers = servers
}

func (l *List) started() []Server {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.servers[:len(l.servers):len(l.servers)]
}

// Status reports what all of them serve.
func (l *List) Status() []ctl.FrontEnd {
	all := make([]ctl.FrontEnd, 0)
	for _, s := range l.started() {
		all = append(all, s.Status())
	}
	return all
}

// Drain drains all of them in parallel and returns when the last one has ended.
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

// Unfinished returns the names of those that Drain or Close still waits for.
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
