package snapshot

import (
	"sync/atomic"

	"udm/blk"
	"udm/dm"
)

// A bio of several chunks is cut only where the chunks stop being alike. Chunks that
// are consecutive in the COW device too, chunks that are still in the origin, and
// chunks that are written whole and get consecutive places are each one bio below.
// (The kernel cuts at every chunk and merges the parts again in the queue of the
// lower device.)

// mapRun maps the first alike chunks of c, which has more than one.
func (s *snapshot) mapRun(c *dm.Clone, b *body) dm.Outcome {
	chunk := c.Sector >> b.shift
	where, n, ok := b.complete.lookupRun(chunk, b.chunks(c))
	switch {
	case ok:
		return s.toCow(c, b, where, n)
	case c.Op == blk.Read:
		return s.readOrigin(c, b, chunk, n)
	case c.Sector&b.mask != 0 || c.Sectors < 2<<b.shift || c.Flags&blk.NoWait != 0 || s.has(flagNoSpace) || s.over():
		b.accept(c, 1)
		return s.writeNew(c, b, chunk)
	}
	s.at(pointAllocate)
	pe, sl, found := s.lockPending(b, chunk, flagValid)
	if pe != nil && !pe.started {
		s.writeRun(c, b, pe, sl)
		return dm.Submitted
	}
	b.accept(c, 1)
	return s.joinIn(c, b, pe, sl, found)
}

// chunks returns how many chunks c touches.
func (b *body) chunks(c *dm.Clone) uint64 { return (c.EndSector()-1)>>b.shift - c.Sector>>b.shift + 1 }

// accept shrinks c to its first n chunks.
func (b *body) accept(c *dm.Clone, n uint64) {
	if sectors := n<<b.shift - c.Sector&b.mask; sectors < c.Sectors {
		c.Accept(sectors)
	}
}

// toCow sends the part of c in its first n chunks to the COW device.
func (s *snapshot) toCow(c *dm.Clone, b *body, where, n uint64) dm.Outcome {
	b.accept(c, n)
	b.remap(c, where)
	c.Dev = s.cow.Device
	return dm.Remapped
}

// writeRun lets c replace the copy of pe, whose slot it unlocks, and those of the
// chunks after it that c covers, as long as they have no exceptions and their places
// are consecutive.
func (s *snapshot) writeRun(c *dm.Clone, b *body, pe *pending, sl *slot) {
	pe.started = true
	f := s.newFull(c, pe)
	pe.full = f
	sl.mu.Unlock()
	n, last := uint64(1), pe
	for most := c.Sectors >> b.shift; n < most; n++ {
		next := s.extend(b, f, pe.old+n, pe.new+n)
		if next == nil {
			break
		}
		last.run, last = next, next
	}
	s.toCow(c, b, pe.new, n)
	f.start(n)
}

// extend creates the pending exception of chunk at place where, whose copy f
// replaces. It returns nil if there is one already or the place cannot be allocated
// next.
func (s *snapshot) extend(b *body, f *fullWrite, chunk, where uint64) *pending {
	sl := s.pending.slot(chunk)
	sl.mu.Lock()
	defer sl.mu.Unlock()
	if sl.lookupLocked(chunk) != nil || !s.has(flagValid) {
		return nil
	}
	if _, ok := b.complete.lookup(chunk); ok {
		return nil
	}
	pe := s.makeLocked(sl, b, chunk, where)
	if pe != nil {
		pe.started, pe.full = true, f
	}
	return pe
}

// fullWrite is a write of whole chunks that replaces their copies. It ends when all
// their exceptions are complete.
type fullWrite struct {
	snap   *snapshot
	clone  *dm.Clone
	first  *pending
	left   atomic.Int64 // exceptions not complete yet
	failed atomic.Bool
	ended  func(*blk.Bio)
	_      [16]byte // pads to a cache line: it is used on one processor
}

// newFull creates the full write of c for the chunks from first on.
func (s *snapshot) newFull(c *dm.Clone, first *pending) *fullWrite {
	f := s.pending.fulls.Get().(*fullWrite)
	f.clone, f.first = c, first
	return f
}

// free recycles f, to which no pending exception refers.
func (f *fullWrite) free() {
	f.clone, f.first = nil, nil
	f.failed.Store(false)
	f.snap.pending.fulls.Put(f)
}

// start submits the write of n chunks. Its end is reported through kc, which waits
// for it when closed. Nothing else is recorded while many chunks are written.
func (f *fullWrite) start(n uint64) {
	s, c := f.snap, f.clone
	st, r := s.body.Load().store, f.first.record
	f.left.Store(int64(n))
	for pe := f.first; pe != nil; pe = pe.run {
		s.inFlight.Take(pe.shard, 1)
		s.kc.Prepare(&pe.job)
		if n > 1 {
			st.sent(pe.record)
		}
	}
	c.Redirect(f.ended)
	c.Issue()
	st.sent(r)
}

// end ends the lower I/O. f may be recycled once its last exception is reported.
func (f *fullWrite) end(b *blk.Bio) {
	kc, failed := f.snap.kc, b.Status() != blk.OK
	if b.Status() == blk.NoSpace && f.wait() {
		return
	}
	for pe := f.first; pe != nil; {
		next := pe.run
		if failed {
			pe.job.WriteFailed = 1
		}
		kc.Fire(&pe.job)
		pe = next
	}
}

// done counts one complete exception and ends the write after the last.
func (f *fullWrite) done(failed bool) {
	if failed {
		f.failed.Store(true)
	}
	if f.left.Add(-1) > 0 {
		return
	}
	c, st := f.clone, outcome(f.failed.Load())
	f.free()
	c.Restore()
	c.Rearm()
	c.Complete(st)
}

// wait queues a write that found no space for a retry, or gives up.
func (f *fullWrite) wait() bool {
	if f.snap.has(flagNoSpace) {
		f.giveUp()
		return true
	}
	return f.snap.space.park(f.tryAgain, f.giveUp)
}
