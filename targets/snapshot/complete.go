package snapshot

import (
	"udm/blk"
	"udm/dm"
	"udm/targets/internal/kcopyd"
)

// copied is the callback of every copy and full write.
func (s *snapshot) copied(j *kcopyd.Job) {
	pe := j.Private.(*pending)
	sh := pe.shard
	if j.NoSpace && s.space.park(pe.copyAgain, nil) {
		return
	}
	s.body.Load().store.commit(&pe.exception, !j.Failed())
	s.copyDone(sh)
}

// recorded is called by the store. It adds the complete exception first, so that new
// reads go to the COW device, and then waits only for the older reads of the origin:
// new ones cannot delay it. Nobody overwrites the origin meanwhile, because origin
// writes wait for pe.
func (pe *pending) recorded(ok bool) {
	s := pe.snap
	if !ok || !s.has(flagValid) {
		s.chunkLost()
		s.whenDurable(func() { pe.finish(true) })
		return
	}
	s.body.Load().complete.insert(pe.old, pe.new)
	if s.tracked.drain(pe.old, pe.drained) {
		pe.finish(false)
	}
}

// finish removes pe from the pending table and releases the bios that wait for it.
// Writes to the origin continue even after a failure: they check all snapshots again.
func (pe *pending) finish(failed bool) {
	s, sh := pe.snap, pe.shard
	sl := s.pending.slot(pe.old)
	sl.mu.Lock()
	sl.removeLocked(pe)
	writes, origins, merges := pe.writes.Take(), pe.origins.Take(), pe.merges
	sl.mu.Unlock()
	if pe.full != nil {
		pe.full.done(failed)
	}
	for c := writes.Pop(); c != nil; c = writes.Pop() {
		if failed {
			c.Complete(blk.IOErr)
		} else {
			c.Issue()
		}
	}
	pe.free()
	if failed && s.has(flagClosing) && s.has(flagValid) {
		failAll(origins)
	} else {
		s.group.retry(origins)
	}
	for _, fn := range merges {
		fn()
	}
	sh.End()
	if s.settling.Load() {
		s.idle.Wake()
	}
}

// chunkLost makes the snapshot invalid, unless it is being closed: then the writes
// that waited for the chunk fail instead.
func (s *snapshot) chunkLost() {
	if !s.has(flagClosing) {
		s.invalidate("a chunk could not be copied or recorded")
	}
}

func failAll(cs dm.CloneList) {
	for c := cs.Pop(); c != nil; c = cs.Pop() {
		c.Complete(blk.NoSpace)
	}
}

func outcome(failed bool) blk.Status {
	if failed {
		return blk.IOErr
	}
	return blk.OK
}

// unfinished reports whether there are pending exceptions.
func (s *snapshot) unfinished() bool { return !s.inFlight.Idle() }

// settle waits until no exception is pending. Nobody may create new ones.
func (s *snapshot) settle() {
	s.settling.Store(true)
	s.idle.Until(func() bool { return !s.unfinished() && !s.has(flagDropping|flagFlushing) })
}

// invalidate makes the snapshot invalid for good because its content can no longer be
// kept. whenDurable defers what must not happen before the store knows.
func (s *snapshot) invalidate(reason string) {
	if !s.beginDrop() {
		return
	}
	s.target.Log().Error("snapshot is lost: invalid from now on", "reason", reason)
	s.body.Load().store.drop(func() {
		s.target.Event()
		s.becameDurable(flagDropping)
	})
}

// flushRead flushes what was read from the store, once: an earlier process may have ended
// between a write and its flush. The origin must not be written before: after a power cut
// the store would not know what the origin had.
func (s *snapshot) flushRead() {
	if !s.beginFlush() {
		return
	}
	s.body.Load().store.flush(func(ok bool) {
		if !ok && !s.has(flagClosing) {
			s.invalidate("its store could not be flushed")
		}
		s.set(0, flagUnflushed)
		s.letHeldGo()
		s.becameDurable(flagFlushing)
	})
}

func (s *snapshot) beginFlush() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.flags.Load()&(flagUnflushed|flagFlushing) != flagUnflushed {
		return false
	}
	s.set(flagFlushing, 0)
	return true
}

// letHeldGo calls what waits for the flush while later writes to the origin still wait: the
// parts of one write get their places in the store in order, as in the kernel.
func (s *snapshot) letHeldGo() {
	for {
		s.mu.Lock()
		var todo []func()
		if !s.has(flagDropping) {
			todo, s.waiting = s.waiting, nil
		}
		s.mu.Unlock()
		if len(todo) == 0 {
			return
		}
		for _, fn := range todo {
			fn()
		}
	}
}

// becameDurable clears flags, and calls what waits unless more is to become durable.
func (s *snapshot) becameDurable(flags uint32) {
	var todo []func()
	s.mu.Lock()
	s.set(0, flags)
	if !s.has(flagDropping | flagFlushing) {
		todo, s.waiting = s.waiting, nil
	}
	s.mu.Unlock()
	for _, fn := range todo {
		fn()
	}
	if s.settling.Load() {
		s.idle.Wake()
	}
}

func (s *snapshot) beginDrop() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.has(flagValid) {
		return false
	}
	s.set(flagDropping, flagValid)
	return true
}

// whenDurable calls fn at once, or after the store has been flushed or marked invalid if
// that is under way.
func (s *snapshot) whenDurable(fn func()) {
	s.mu.Lock()
	if s.has(flagDropping | flagFlushing) {
		s.waiting = append(s.waiting, fn)
		s.mu.Unlock()
		return
	}
	s.mu.Unlock()
	fn()
}

// retry maps origin writes again that waited for an exception.
func (g *group) retry(cs dm.CloneList) {
	for c := cs.Pop(); c != nil; c = cs.Pop() {
		if g.write(c) == dm.Remapped {
			c.Issue()
		}
	}
}
