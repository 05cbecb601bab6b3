// Package deferredset waits for I/O that is in flight now, and only for that
// (drivers/md/dm-bio-prison-v1.c, struct dm_deferred_set).
//
// I/O enters a [Set] before it is issued and leaves it when it has ended. A work
// added to the set runs when everything that had entered before has left; what
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
//
// Entering reads two words that only AddWork writes, and adds to a counter that
// no other processor uses: mapped I/O of different processors shares no cache
// line that anyone writes to. It counts first and looks at the current epoch
// again after; AddWork moves the epoch first and looks at the counts after. One
// of the two therefore sees the other: either the work waits for the entry, or
// the entry is made again in the next epoch.
//
// The same holds for whoever makes a set's user: publish "this block must not be
// used any more", then AddWork; enter, then look whether the block may be used.
//
// Lock order: Set.mu is a leaf. Works run without it, on the stack of the Leave
// that made them ready.
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

	// Read by every entry, written by AddWork and what it leads to.
	current atomic.Uint64 // epoch that entries are made in; written under mu
	waiting atomic.Int64  // works that have not run
	_       [64]byte

	mu     sync.Mutex
	oldest uint64         // guarded by mu; epochs before it are drained
	works  [ring][]func() // guarded by mu; works[e%ring] wait for epochs up to e
}

// shard counts the entries of one processor, by epoch. It is a whole number of
// cache line pairs.
type shard struct{ n [ring]atomic.Int32 }

// Shard is where a processor's entries are counted: see [Set.Shard].
type Shard struct{ s *shard }

// Entry is one I/O in the set; the zero value is none.
type Entry struct{ n *atomic.Int32 }

// New returns an empty set.
func New() *Set {
	s := &Set{shards: make([]shard, 2*runtime.GOMAXPROCS(0))}
	s.tokens.New = s.newToken
	return s
}

func (s *Set) newToken() any { return &s.shards[int(s.dealt.Add(1))%len(s.shards)] }

// Shard picks the shard for entries made on the caller's processor from now on.
// It is right on any other as well, only slower until Enter gives it up.
func (s *Set) Shard() Shard { return Shard{s.pick(nil)} }

// pick deals out a shard, but for the one to avoid.
func (s *Set) pick(avoid *shard) *shard {
	sh := s.tokens.Get().(*shard)
	if sh == avoid {
		sh = s.newToken().(*shard)
	}
	s.tokens.Put(sh)
	return sh
}

// Enter adds one I/O to the set. It does not allocate and takes no lock. Where
// two processors meet at a shard, because what holds it has moved, one of them is
// given another.
func (s *Set) Enter(sh *Shard) Entry {
	for {
		e := s.current.Load()
		n := &sh.s.n[e%ring]
		if v := n.Load(); !n.CompareAndSwap(v, v+1) {
			sh.s = s.pick(sh.s)
			continue
		}
		if s.current.Load() == e {
			return Entry{n}
		}
		s.Leave(Entry{n})
	}
}

// Leave ends one I/O. It may run works.
func (s *Set) Leave(e Entry) {
	e.n.Add(-1)
	if s.waiting.Load() != 0 {
		s.sweep()
	}
}

// In reports whether the entry is one.
func (e Entry) In() bool { return e.n != nil }

// AddWork runs fn once when everything that is in the set now has left it. It
// reports false, without running fn, when there is nothing to wait for.
func (s *Set) AddWork(fn func()) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waiting.Add(1) // before the counts are looked at: see Leave
	e := s.current.Load()
	s.closeLocked()
	if s.idleUpToLocked(e) {
		s.waiting.Add(-1)
		return false
	}
	s.works[e%ring] = append(s.works[e%ring], fn)
	return true
}

// closeLocked opens the next epoch if the ring has room for it. If not, the
// current one goes on until sweep has made room.
func (s *Set) closeLocked() {
	if e := s.current.Load(); e+1-s.oldest < ring {
		s.current.Store(e + 1)
	}
}

// idleUpToLocked reports whether no entry and no work is left in the epochs up
// to e, all of them closed.
func (s *Set) idleUpToLocked(e uint64) bool {
	for s.oldest <= e && s.oldest < s.current.Load() && len(s.works[s.oldest%ring]) == 0 && s.drained(s.oldest) {
		s.oldest++
	}
	return s.oldest > e
}

func (s *Set) drained(e uint64) bool {
	for i := range s.shards {
		if s.shards[i].n[e%ring].Load() != 0 {
			return false
		}
	}
	return true
}

// sweep runs the works of the epochs that have drained, oldest first.
func (s *Set) sweep() {
	s.mu.Lock()
	var ready []func()
	for s.oldest < s.current.Load() && s.drained(s.oldest) {
		i := s.oldest % ring
		ready = append(ready, s.works[i]...)
		s.works[i] = nil
		s.oldest++
		if len(s.works[s.current.Load()%ring]) > 0 {
			s.closeLocked()
		}
	}
	s.waiting.Add(-int64(len(ready)))
	s.mu.Unlock()
	for _, fn := range ready {
		fn()
	}
}
