package kcopyd

import (
	"sync"
	"time"

	"udm/env"
)

// Throttle bounds the share of time in which copies are under way, over all the
// clients that use it (the kernel's dm_kcopyd_throttle, a module parameter).
type Throttle struct {
	env     env.Env
	percent func() uint32

	mu    sync.Mutex
	ios   int           // guarded by mu; I/O under way
	last  time.Duration // guarded by mu; when the periods were brought up to date
	busy  time.Duration // guarded by mu
	total time.Duration // guarded by mu
}

const (
	throttlePause = 100 * time.Millisecond
	// maxPauses bounds the wait of one piece: several clients that share a
	// throttle could otherwise keep each other waiting for ever.
	maxPauses = 10
	// accountFor is how much past counts: beyond it, busy and total are halved.
	accountFor = time.Second
)

// NewThrottle makes one that allows a share of the time that percent tells each
// time it is asked: 100 and more for no limit, 0 for as little as there can be. Any
// number of goroutines call it.
func NewThrottle(e env.Env, percent func() uint32) *Throttle {
	return &Throttle{env: e, percent: percent}
}

// limits reports whether there is anything to count.
func (t *Throttle) limits() bool { return t.percent() < 100 }

// over reports whether copies had more than their share until now. If not, or
// with force, one I/O counts as under way until finish.
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

// holdBack counts s's I/O, or keeps s for a while and reports true.
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

// hold puts s behind those that are held back and reports whether it is the only
// one: then nobody has armed the timer. Who comes later leaves the timer alone,
// so each segment waits for its own pause and not for those of others.
func (c *Client) hold(s *segment) (first bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	first = c.held.Empty()
	s.due = c.throttle.env.Now() + throttlePause
	c.held.Push(s)
	return first
}

// releaseHeld lets the segments whose pause is over try again, and comes back
// for the next one.
func (c *Client) releaseHeld() {
	due, wait := c.takeDue(c.throttle.env.Now())
	if wait > 0 {
		c.queue.QueueAfter(c.release, wait)
	}
	for s := due.Pop(); s != nil; s = due.Pop() {
		s.run()
	}
}

// takeDue takes out the segments that are due, and tells how long the next one
// has to wait: 0 when there is none.
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
