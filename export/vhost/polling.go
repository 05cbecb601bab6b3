package vhost

import (
	"sync/atomic"
	"time"
)

// polling decides whether a worker watches its ring before it sleeps. That saves the guest
// a kick and the worker a wake-up, but takes a processor. It pays while requests follow
// each other closely, so a ring is watched if its last wait was within the limit.
//
//	         a short wait                         the limit, or nothing to watch for
//	asleep ──────────────► watching at each wait ──────────────────────────────────► asleep
//	                             │
//	                             └─ its processor was taken from it ─► asleep for some waits
//
// Times are those of one monotonic clock.
type polling struct {
	limit time.Duration // of a wait that is watched; 0: none is
	pays  bool          // the last wait was within the limit
	rest  int           // waits not to watch, because others need the processor
	since time.Duration // the beginning of the wait
	seen  time.Duration // the last look at the clock
}

const (
	pollLimit = 32 * time.Microsecond // some three wake-ups
	pollLost  = 20 * time.Microsecond // between two looks: another thread has run
	pollRest  = 1000
)

// begin begins a wait and reports whether to watch.
func (p *polling) begin(now time.Duration) bool {
	p.since, p.seen = now, now
	if p.rest > 0 {
		p.rest--
		return false
	}
	return p.pays
}

// goOn reports whether to go on watching.
func (p *polling) goOn(now time.Duration) bool {
	if now-p.seen > pollLost {
		p.rest = pollRest
		return false
	}
	p.seen = now
	return now-p.since < p.limit
}

// end ends a wait, watched or slept through.
func (p *polling) end(now time.Duration) { p.pays = now-p.since <= p.limit }

// spare is how many workers may watch at once on a number of processors. Guests, the
// devices below and the rest of the daemon need processors as well.
func spare(processors int) int { return max(0, (processors-2)/2) }

// seats bounds the workers that watch at once.
type seats struct {
	n     int32
	taken atomic.Int32
}

func (s *seats) take() bool {
	if s.taken.Add(1) <= s.n {
		return true
	}
	s.taken.Add(-1)
	return false
}

func (s *seats) leave() { s.taken.Add(-1) }
