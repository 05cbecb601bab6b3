// Package events passes events of devices to subscribers. Each subscriber has its own
// queue. One that falls behind loses events and is told how many, so that it does not
// delay those who raise them.
//
// Lock order: Hub.mu, then subscriber.mu, a leaf. Both are leaves for the rest of
// the program: targets raise events under locks of their own.
package events

import (
	"context"
	"iter"
	"sync"

	"udm/ctl"
	"udm/env"
)

// maxQueued is how many events a subscriber may fall behind.
const maxQueued = 1024

// Hub passes events to subscribers. It is safe for concurrent use.
type Hub struct {
	env env.Env

	mu          sync.Mutex
	subscribers map[*subscriber]bool // guarded by mu
}

// NewHub returns a Hub without subscribers.
func NewHub(e env.Env) *Hub {
	return &Hub{env: e, subscribers: make(map[*subscriber]bool)}
}

// Tell passes an event to all present subscribers. It does not block.
func (h *Hub) Tell(e ctl.Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for s := range h.subscribers {
		s.add(e)
	}
}

// Subscribe starts a subscription, which ends when ctx does. The sequence can be used
// only once.
func (h *Hub) Subscribe(ctx context.Context) iter.Seq2[ctl.Event, error] {
	s := &subscriber{wake: h.env.NewWait()}
	h.mu.Lock()
	h.subscribers[s] = true
	h.mu.Unlock()
	end := func() {
		h.mu.Lock()
		delete(h.subscribers, s)
		h.mu.Unlock()
		s.wake.Wake()
	}
	context.AfterFunc(ctx, end)
	return func(yield func(ctl.Event, error) bool) {
		defer end()
		for {
			s.wake.Until(func() bool { return s.waiting() || ctx.Err() != nil })
			e, ok := s.next()
			if !ok || !yield(e, nil) {
				return
			}
		}
	}
}

// subscriber is a queue of events.
type subscriber struct {
	wake env.Wait

	mu    sync.Mutex
	queue []ctl.Event // guarded by mu
	lost  uint64      // guarded by mu; events after the last of queue
}

// add queues an event, or counts it as lost. After a lost event all further ones are
// lost, until the subscriber has been told.
func (s *subscriber) add(e ctl.Event) {
	s.mu.Lock()
	if s.lost > 0 || len(s.queue) >= maxQueued {
		s.lost++
	} else {
		s.queue = append(s.queue, e)
	}
	s.mu.Unlock()
	s.wake.Wake()
}

func (s *subscriber) waiting() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.queue) > 0 || s.lost > 0
}

// next returns the oldest event, or the number of lost ones.
func (s *subscriber) next() (e ctl.Event, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case len(s.queue) > 0:
		e, s.queue = s.queue[0], s.queue[1:]
		return e, true
	case s.lost > 0:
		e, s.lost = ctl.Event{Kind: ctl.EventsLost, Lost: s.lost}, 0
		return e, true
	}
	return e, false
}
