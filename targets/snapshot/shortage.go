package snapshot

import (
	"sync"
	"time"

	"udm/blk"
	"udm/dm"
	"udm/env"
)

// A COW device may lie on a full file system. (In the kernel such a write fails and
// the snapshot becomes invalid.) Space is always allocated before an exception that
// needs it is recorded: a chunk is copied before it is recorded, and an area is
// zeroed before the one before it is full. So only writes that can be repeated run
// out of space:
//
//	copy of a chunk            is repeated
//	write of whole chunks      is repeated; when that takes too long it
//	                           fails, and its chunks are copied
//	write to an exception      is mapped again
//	area of the store          is zeroed or written again; chunks copied
//	                           meanwhile wait to be recorded
//	run that is merged         is copied and cleared again
//
// Reads continue. After no_space_timeout seconds writes that need space fail. Copies
// that have begun are still retried, but nobody waits for them. Only a write of whole
// chunks whose data is in the store, and whose exceptions have to be recorded, waits on:
// if it failed, its data would appear later.

// spaceRetry is the time between two attempts.
const spaceRetry = time.Second

// shortage is the work of a snapshot that waits for space.
type shortage struct {
	s     *snapshot
	queue env.Queue
	work  *env.Work // tick

	mu     sync.Mutex
	waits  []parked      // guarded by mu
	lasts  bool          // guarded by mu; a tick is scheduled
	since  time.Duration // guarded by mu; start of the shortage
	closed bool          // guarded by mu; nothing may wait any more
}

// parked is work to retry, and what to do instead if space does not come in time;
// nil: keep trying.
type parked struct{ again, giveUp func() }

func (q *shortage) init(s *snapshot, e env.Env) {
	q.s, q.queue, q.work = s, e.NewQueue("snapshot-space"), env.NewWork(q.tick)
}

// park queues work for a retry. It returns false if the work must not wait.
func (q *shortage) park(again, giveUp func()) bool {
	first, ok := q.add(parked{again, giveUp})
	switch {
	case !first:
		return ok
	case q.s.registry.failNoSpace.Get() != 0:
		q.tryNow()
	default:
		q.queue.QueueAfter(q.work, spaceRetry)
	}
	q.s.target.Log().Warn("no space for the snapshot's store on the disk below: writes wait until there is some")
	return true
}

// add reports whether p is the first of a shortage.
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

// tick retries everything once. The shortage is over when no work has come back since
// the last tick.
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
	w := q.s.registry
	timeout := time.Duration(w.noSpaceTimeout.Get()) * time.Second
	late = w.failNoSpace.Get() != 0 || timeout > 0 && q.s.target.Env().Now()-q.since >= timeout
	return waits, late
}

// tryNow retries without waiting for the next tick.
func (q *shortage) tryNow() { q.queue.Queue(q.work) }

// hurry retries on behalf of a caller that waits until all work has found space, and
// logs that.
func (q *shortage) hurry() {
	q.mu.Lock()
	waits := len(q.waits) > 0
	q.mu.Unlock()
	if waits {
		q.s.target.Log().Warn("no space for the snapshot's store on the disk below: the new table waits until there is some")
		q.tryNow()
	}
}

// stop fails work that does not succeed now.
func (q *shortage) stop() {
	q.mu.Lock()
	q.closed = true
	q.mu.Unlock()
	q.tryNow()
}

// waitForSpace queues a write that found no space below an exception.
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

// noSpace fails a write that needs space after the timeout.
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
		s.target.Log().Warn("no space was made in time; writes that need space fail")
		s.target.Event()
	}
	slots := s.pending.made()
	for i := range slots {
		failAll(slots[i].takeWaiting())
	}
}

// takeWaiting removes and returns the writes that wait for the slot's pending
// exceptions.
func (sl *slot) takeWaiting() (cs dm.CloneList) {
	sl.mu.Lock()
	defer sl.mu.Unlock()
	for pe := sl.head.Load(); pe != nil; pe = pe.inTable {
		cs.Append(&pe.writes)
		cs.Append(&pe.origins)
	}
	return cs
}

// copyAgain repeats the copy of a pending exception that found no space.
func (pe *pending) copyAgain() { pe.copy(pe.snap.body.Load()) }

// tryAgain repeats the write.
func (f *fullWrite) tryAgain() {
	c, b := f.clone, f.snap.body.Load()
	c.Rewind()
	c.Sector = f.first.new << b.shift
	c.Issue()
}

// giveUp fails the write and lets its chunks be copied.
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
