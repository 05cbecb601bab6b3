package snapshot

import (
	"sync"
	"time"

	"udm/blk"
	"udm/dm"
	"udm/env"
)

// A COW device may lie on a file system that is full. (In the kernel such a write
// fails and the snapshot is lost.) Nothing says that data is there before its
// space is taken: a chunk is copied before it is recorded, an area is zeroed,
// with its blocks, before the one in front of it is full. So a lack of space is
// met by writes that can be repeated:
//
//	a copy of a chunk            is made again
//	a write of whole chunks      is sent again; when that takes too long it
//	                             fails, and its chunks are copied
//	a write to an exception      is mapped again
//	an area of the store         is zeroed or written again; all that is copied
//	                             meanwhile waits to be recorded
//	a run that is merged         is copied again, and cleared again
//
// Reads go on. After no_space_timeout seconds writes that need space fail, while
// what has begun to be copied is tried on, without anybody who waits for it.

// spaceRetry is the time between two attempts.
const spaceRetry = time.Second

// shortage is what of a snapshot waits for space.
type shortage struct {
	s     *snapshot
	queue env.Queue
	work  *env.Work // tick

	mu     sync.Mutex
	waits  []parked      // guarded by mu
	lasts  bool          // guarded by mu; a tick will come
	since  time.Duration // guarded by mu; when it began
	closed bool          // guarded by mu; nothing waits any more
}

// parked is something to do again, and what to do instead when space did not come
// in time; nil: it is tried on.
type parked struct{ again, giveUp func() }

func (q *shortage) init(s *snapshot, e env.Env) {
	q.s, q.queue, q.work = s, e.NewQueue("snapshot-space"), env.NewWork(q.tick)
}

// park keeps something for later. It reports false when it cannot wait.
func (q *shortage) park(again, giveUp func()) bool {
	first, ok := q.add(parked{again, giveUp})
	switch {
	case !first:
		return ok
	case q.s.world.failNoSpace.Get() != 0:
		q.tryNow()
	default:
		q.queue.QueueAfter(q.work, spaceRetry)
	}
	q.s.target.Log().Warn("no space for the snapshot's store on the disk below; make some, writes wait for it")
	return true
}

// add tells whether p is the first of a shortage.
func (q *shortage) add(p parked) (first, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return false, false
	}
	q.waits = append(q.waits, p)
	if first = !q.lasts; first {
		q.lasts, q.since = true, q.s.target.Env().Now()
	}
	return first, true
}

// tick tries everything once more. The shortage is over when nothing has come
// back since the last one.
func (q *shortage) tick() {
	waits, late := q.take()
	if len(waits) == 0 {
		return
	}
	if late {
		q.s.failWaiting()
	}
	q.queue.QueueAfter(q.work, spaceRetry)
	for _, w := range waits {
		if late && w.giveUp != nil {
			w.giveUp()
		} else {
			w.again()
		}
	}
}

func (q *shortage) take() (waits []parked, late bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	waits, q.waits = q.waits, nil
	if q.lasts = len(waits) > 0; !q.lasts {
		q.s.set(0, flagNoSpace)
		return nil, false
	}
	w := q.s.world
	timeout := time.Duration(w.noSpaceTimeout.Get()) * time.Second
	late = w.failNoSpace.Get() != 0 || timeout > 0 && q.s.target.Env().Now()-q.since >= timeout
	return waits, late
}

// tryNow does not wait for the next tick.
func (q *shortage) tryNow() { q.queue.Queue(q.work) }

// hurry tries again for somebody who waits until all of it has space, and says so.
func (q *shortage) hurry() {
	q.mu.Lock()
	waits := len(q.waits) > 0
	q.mu.Unlock()
	if waits {
		q.s.target.Log().Warn("a new table waits for space for the snapshot's store on the disk below; make some")
		q.tryNow()
	}
}

// stop lets what waits fail if it does not succeed now.
func (q *shortage) stop() {
	q.mu.Lock()
	q.closed = true
	q.mu.Unlock()
	q.tryNow()
}

// waitForSpace keeps a write that found no space below an exception.
func (s *snapshot) waitForSpace(c *dm.Clone) bool {
	if c.Op != blk.Write || c.Dev != s.cow.Device || c.Flags&blk.NoWait != 0 || s.has(flagNoSpace) {
		return false
	}
	return s.space.park(func() {
		c.Rewind()
		finishMap(c, s.target.Mapper().Map(c))
	}, func() {
		c.Rearm()
		c.Complete(blk.NoSpace)
	})
}

// noSpace ends a write that needs space that nobody waits for any more.
func (s *snapshot) noSpace(c *dm.Clone) bool {
	if !s.has(flagNoSpace) {
		return false
	}
	c.Complete(blk.NoSpace)
	return true
}

// failWaiting fails the writes that wait for pending exceptions.
func (s *snapshot) failWaiting() {
	if s.set(flagNoSpace, 0)&flagNoSpace == 0 {
		s.target.Log().Warn("nobody made space in time; writes that need some fail")
		s.target.Event()
	}
	for i := range s.pending.slots {
		failAll(s.pending.slots[i].takeWaiting())
	}
}

// takeWaiting takes the writes out that wait for the slot's pending exceptions.
func (sl *slot) takeWaiting() (cs dm.CloneList) {
	sl.mu.Lock()
	defer sl.mu.Unlock()
	for pe := sl.head.Load(); pe != nil; pe = pe.inTable {
		cs.Append(&pe.writes)
		cs.Append(&pe.origins)
		if pe.full != nil {
			if c := pe.full.answer(); c != nil {
				cs.Push(c)
			}
		}
	}
	return cs
}

// copyAgain is startCopy for a pending exception that found no space.
func (pe *pending) copyAgain() { pe.copy(pe.snap.body.Load()) }

// tryAgain sends the write once more.
func (f *fullWrite) tryAgain() {
	c, b := f.clone, f.snap.body.Load()
	c.Rewind()
	c.Sector = f.first.new << b.shift
	c.Issue()
}

// giveUp fails the write and leaves its chunks to be copied.
func (f *fullWrite) giveUp() {
	c, pe := f.clone, f.first
	for pe != nil {
		next := pe.run
		pe.leaveFull()
		pe.job.WriteFailed, pe.job.NoSpace = 1, true
		f.snap.kc.Fire(&pe.job)
		pe = next
	}
	f.free()
	c.Restore()
	c.Rearm()
	c.Complete(blk.NoSpace)
}

func (pe *pending) leaveFull() {
	sl := pe.snap.pending.slot(pe.old)
	sl.mu.Lock()
	pe.full, pe.run = nil, nil
	sl.mu.Unlock()
}

// answer returns the clone for whoever calls first once its data has arrived: he
// completes it.
func (f *fullWrite) answer() *dm.Clone {
	if !f.landed.Load() || !f.answered.CompareAndSwap(false, true) {
		return nil
	}
	f.clone.Restore()
	f.clone.Rearm()
	return f.clone
}
