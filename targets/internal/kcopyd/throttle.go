package kcopyd

import (
	"sync"
	"time"

	"udm/env"
)

// Throttle bounds the share of time during which copies are in flight, over all
// clients that use it (the kernel's dm_kcopyd_throttle, a module parameter).
type Throttle struct {
	env     env.Env
	percent func() uint32

	mu    sync.Mutex
	ios   int           // guarded by mu; I/O in flight
	last  time.Duration // guarded by mu; time of the last accounting
	busy  time.Duration // guarded by mu
	total time.Duration // guarded by mu
}

const (
	throttlePause = 100 * time.Millisecond
	// maxPauses bounds the pauses of one piece: clients that share a throttle
	// could otherwise delay each other for ever.
	maxPauses = 10
	// accountFor is the length of the accounting period: beyond it, busy and
	// total are halved.
	accountFor = time.Second
)

// NewThrottle creates a throttle that calls percent for each decision: 100 or more
// means no limit, 0 the least possible share. percent must be safe for concurrent
// use.
func NewThrottle(e env.Env, percent func() uint32) *Throttle {
	return &Throttle{env: e, percent: percent}
}

// limits reports whether the throttle is active.
func (t *Throttle) limits() bool { return t.percent() < 100 }

// over reports whether copies had more than their share so far. If not, or with
// force, one I/O counts as in flight until finish.
func (t *Throttle) over(force bool) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.accountLocked()
	if t.busy > t.total*time.Duration(t.percent())/100 && !force {
		return true
	}
	t.ios++
	return false
}

func (t *Throttle) accountLocked() {
	now := t.env.Now()
	d := now - t.last
	t.last = now
	if t.ios > 0 {
		t.busy += d
	}
	for t.total += d; t.total >= accountFor; t.total /= 2 {
		t.busy /= 2
	}
}

func (t *Throttle) finish() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.accountLocked()
	t.ios--
}

// holdBack counts the I/O of s, or holds s back for a while and returns true.
func (c *Client) holdBack(s *segment) bool {
	if !c.throttle.over(s.pauses >= maxPauses) {
		s.counted = true
		return false
	}
	s.pauses++
	if c.hold(s) {
		c.queue.QueueAfter(c.release, throttlePause)
	}
	return true
}

// hold queues s behind the held segments and reports whether it is the only one;
// then the timer is not armed yet. Later segments do not rearm the timer, so each
// waits for its own pause and not for those of others.
func (c *Client) hold(s *segment) (first bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	first = c.held.Empty()
	s.due = c.throttle.env.Now() + throttlePause
	c.held.Push(s)
	return first
}

// releaseHeld lets the segments whose pause is over try again, and rearms the
// timer for the next one.
func (c *Client) releaseHeld() {
	due, wait := c.takeDue(c.throttle.env.Now())
	if wait > 0 {
		c.queue.QueueAfter(c.release, wait)
	}
	for s := due.Pop(); s != nil; s = due.Pop() {
		s.run()
	}
}

// takeDue removes the due segments and returns the wait until the next one is
// due: 0 if there is none.
func (c *Client) takeDue(now time.Duration) (due segList, wait time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for s := c.held.First(); s != nil; s = c.held.First() {
		if s.due > now {
			return due, s.due - now
		}
		due.Push(c.held.Pop())
	}
	return due, 0
}
