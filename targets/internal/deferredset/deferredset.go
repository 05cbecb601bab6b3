// Package deferredset waits for the I/O currently in flight, and only for that
// (drivers/md/dm-bio-prison-v1.c, struct dm_deferred_set).
//
// I/O enters a [Set] before it is issued and leaves it after it has ended. A work
// added to the set runs when all I/O that entered earlier has left; I/O that
// enters later does not delay it.
//
// # Protocol
//
// Time is cut into epochs. An entry is a count in the epoch in which it was
// made; AddWork closes the current epoch and opens the next. A work waits for
// the epochs up to the one that it closed, oldest first, so works run in the
// order in which they were added.
//
//	epochs   oldest … │ closed, draining │ … current
//	counts   ring of 64 for each shard; entries of a processor use one shard
//	         ring[e]  closed bit │ entries of the shard
//	left     ring of 64: shards with entries left, of an epoch that is closed
//
// Enter reads one word that only AddWork writes, and adds to a counter that no other
// processor uses, unless the counter is closed: I/O mapped on different processors
// writes no common cache line. The same holds for Leave, even while works wait: only
// the Leave that takes the last entry out of a closed counter decrements the count of
// shards, and only the last of these takes the lock to run works.
//
// A counter is open while its epoch is current, and for a moment before and after. An entry that
// is made at such a moment is either counted in the epoch that AddWork closes, which
// then waits for it, or finds the counter closed and goes into the next epoch.
//
// Users of a set rely on the same order: one side publishes "this block must not be
// used any more" and then calls AddWork; the other side calls Enter and then checks
// whether the block may be used.
//
// Lock order: Set.mu is a leaf. Works run without it, on the goroutine whose Leave made
// them ready.
package deferredset

import (
	"runtime"
	"sync"
	"sync/atomic"
)

const ring = 64

// Set is a deferred set. All methods are safe for concurrent use.
type Set struct {
	shards []shard
	tokens sync.Pool     // *shard: deals out shards by processor
	dealt  atomic.Uint32 // shards dealt out so far
	_      [64]byte

	current atomic.Uint64 // epoch that entries are made in; written under mu
	_       [120]byte     // every entry reads current

	left [ring]atomic.Int32 // of closed epochs; shards that have entries

	mu     sync.Mutex
	oldest uint64         // guarded by mu; epochs before it are drained
	works  [ring][]func() // guarded by mu; works[e%ring] wait for epochs up to e
}

// shard counts the entries of one processor, by epoch. It is a whole number of
// cache line pairs.
type shard struct{ n [ring]atomic.Int32 }

// closed is set in a counter that may no longer be entered.
const closed = 1 << 30

// Shard is where a processor's entries are counted: see [Set.Shard].
type Shard struct{ s *shard }

// Entry is one I/O in the set; the zero value is no entry.
type Entry struct {
	s *shard
	i uint64 // of the ring
}

// New returns an empty set.
func New() *Set {
	s := &Set{shards: make([]shard, 2*runtime.GOMAXPROCS(0))}
	s.tokens.New = s.newToken
	for i := range s.shards {
		for e := 1; e < ring; e++ {
			s.shards[i].n[e].Store(closed)
		}
	}
	return s
}

func (s *Set) newToken() any { return &s.shards[int(s.dealt.Add(1))%len(s.shards)] }

// Shard picks the shard for entries made on the caller's processor from now on.
// It is also correct on any other processor, only slower until Enter replaces it.
func (s *Set) Shard() Shard { return Shard{s.pick(nil)} }

// pick returns a shard other than the one to avoid.
func (s *Set) pick(avoid *shard) *shard {
	sh := s.tokens.Get().(*shard)
	if sh == avoid {
		sh = s.newToken().(*shard)
	}
	s.tokens.Put(sh)
	return sh
}

// Enter adds one I/O to the set. It does not allocate and takes no lock. If somebody
// else changes the same counter at the same moment, because the caller has moved to
// another processor, Enter replaces sh by another shard and tries again.
func (s *Set) Enter(sh *Shard) Entry {
	for {
		i := s.current.Load() % ring
		n := &sh.s.n[i]
		switch v := n.Load(); {
		case v&closed != 0: // the epoch has changed
		case n.CompareAndSwap(v, v+1):
			return Entry{sh.s, i}
		default:
			sh.s = s.pick(sh.s)
		}
	}
}

// Leave ends one I/O. It may run works.
func (s *Set) Leave(e Entry) {
	if e.s.n[e.i].Add(-1) == closed {
		s.shardDrained(e.i)
	}
}

// In reports whether the entry is in a set.
func (e Entry) In() bool { return e.s != nil }

// AddWork runs fn once, when all I/O now in the set has left it. If there is
// nothing to wait for it returns false without running fn.
func (s *Set) AddWork(fn func()) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.current.Load()
	s.closeLocked()
	if s.idleUpToLocked(e) {
		return false
	}
	s.works[e%ring] = append(s.works[e%ring], fn)
	return true
}

// closeLocked closes the current epoch and opens the next if the ring has room
// for it. Otherwise the current epoch continues until sweep makes room.
func (s *Set) closeLocked() {
	e := s.current.Load()
	if e+1-s.oldest == ring {
		return
	}
	s.left[e%ring].Store(int32(len(s.shards)))
	for i := range s.shards {
		s.shards[i].n[(e+1)%ring].Store(0)
	}
	s.current.Store(e + 1)
	for i := range s.shards {
		if s.shards[i].n[e%ring].Or(closed) == 0 {
			s.left[e%ring].Add(-1)
		}
	}
}

// idleUpToLocked reports whether no entry and no work is left in the epochs up
// to e, all of them closed.
func (s *Set) idleUpToLocked(e uint64) bool {
	for s.oldest <= e && s.drainedLocked() && len(s.works[s.oldest%ring]) == 0 {
		s.oldest++
	}
	return s.oldest > e
}

// drainedLocked reports whether the oldest epoch is closed and without entries.
func (s *Set) drainedLocked() bool {
	return s.oldest < s.current.Load() && s.left[s.oldest%ring].Load() == 0
}

// shardDrained records that a shard has no entry left in the closed epoch ring[i].
// The last shard sweeps.
func (s *Set) shardDrained(i uint64) {
	if s.left[i].Add(-1) != 0 {
		return
	}
	for _, fn := range s.sweep() {
		fn()
	}
}

// sweep returns the works of the epochs that have drained, oldest first.
func (s *Set) sweep() (ready []func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.drainedLocked() {
		i := s.oldest % ring
		ready = append(ready, s.works[i]...)
		s.works[i] = nil
		s.oldest++
		if len(s.works[s.current.Load()%ring]) > 0 {
			s.closeLocked()
		}
	}
	return ready
}
