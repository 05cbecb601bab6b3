package dm

import "udm/blk"

// The worker is the work that sends waiting bios in order.
//
// Barriers (dm.c of Linux 2.6.30). A bio flagged Barrier waits for the worker, and so
// do all bios that are submitted before it has ended. The worker maps plain bios as
// it finds them. For a barrier it waits until nothing is in flight, sends it alone
// and without the flag, and goes on when it has ended:
//
//	idle ─ Barrier popped ─► draining ─ in flight = 0 ─► sent ─ all parts ended ─► idle
//	                             │ no data: ends here        │ requeued: back to the
//	                             ▼                           ▼ head of the waiting bios
//
// A suspend stops the worker between two bios; a draining barrier keeps its place and
// goes on after the resume. A barrier does not flush the caches of lower devices:
// above volatile caches, combine it with Preflush and FUA.

// barrier is the barrier that the worker deals with; there is at most one at a time.
type barrier struct {
	orig  *blk.Bio // nil: none
	drain bool     // counted in draining
	sent  bool
	again bool    // a part was pushed back: send all of it again after the resume
	bio   blk.Bio // the copy of orig that is sent
}

// sendWaiting is the worker.
func (d *Device) sendWaiting() {
	for {
		d.mu.Lock()
		a := d.nextLocked()
		d.mu.Unlock()
		if a.do == wait {
			return
		}
		d.perform(a)
	}
}

// nextLocked decides what the worker does next.
func (d *Device) nextLocked() action {
	if p := d.flushed.Pop(); p != nil {
		return d.sendFlushedLocked(p)
	}
	// During a noflush suspend, bios that were pushed back would be pushed back again.
	if !d.mayMapLocked() || d.noflushing.Load() {
		return action{do: wait}
	}
	if d.barrier.orig != nil {
		return d.advanceBarrierLocked()
	}
	b := d.waiting.pop()
	switch {
	case b == nil:
		d.fast.Store(d.live)
		return action{do: wait}
	case b.Flags&blk.Barrier != 0:
		d.barrier.orig = b
		return action{do: again}
	}
	return d.mapLocked(b)
}

// sendFlushedLocked sends the data after a preflush. While no bio may be mapped, it
// puts the bio back before all others that wait, and makes a barrier start again from
// its beginning. The hold takes over the count of the piece.
func (d *Device) sendFlushedLocked(p *piece) action {
	b, sh := p.orig, p.shard
	p.put()
	switch {
	case d.mayMapLocked():
		a := d.mapLocked(b)
		sh.n.Add(-1) // not leave: the hold has taken over
		return a
	case b != &d.barrier.bio:
		d.waitAgainLocked(b)
		return action{do: again, hold: sh}
	}
	d.barrier.again = true
	return action{do: endBio, bio: b, hold: sh}
}

// waitAgainLocked puts a bio that was already sent before all bios that wait. A
// barrier that is draining came after it, so the barrier waits again as well.
func (d *Device) waitAgainLocked(b *blk.Bio) {
	if br := &d.barrier; br.orig != nil && !br.sent {
		d.waiting.pushHead(br.orig)
		br.orig = nil
	}
	d.waiting.pushHead(b)
}

// advanceBarrierLocked takes the barrier one step further if that is possible.
func (d *Device) advanceBarrierLocked() action {
	br := &d.barrier
	if br.sent || !d.drainedLocked() {
		return action{do: wait}
	}
	if orig := br.orig; orig.Op == blk.Write && orig.Sectors == 0 {
		br.orig = nil
		return action{do: endBio, bio: orig}
	}
	br.sent = true
	br.bio.CloneFrom(br.orig)
	br.bio.Flags &^= blk.Barrier
	br.bio.End = d.endBarrier
	return d.mapLocked(&br.bio)
}

// drainedLocked reports whether nothing is in flight; if something is, its end
// queues the worker again.
func (d *Device) drainedLocked() bool {
	br := &d.barrier
	if !br.drain {
		br.drain = true
		d.draining.Add(1)
	}
	if !d.idleLocked() {
		return false
	}
	br.drain = false
	d.draining.Add(-1)
	return true
}

// endBarrier runs when all parts of the barrier have ended.
func (d *Device) endBarrier(*blk.Bio) {
	d.mu.Lock()
	br := &d.barrier
	orig, again, st := br.orig, br.again, br.bio.Status()
	br.orig, br.sent, br.again = nil, false, false
	if again {
		d.waiting.pushHead(orig)
	}
	d.mu.Unlock()
	if !again {
		orig.Complete(st)
	}
	d.queue.Queue(d.send)
}

// requeueBarrier decides about a part of the barrier that was pushed back: during a
// noflush suspend the whole barrier is sent again later, and the part counts as done.
func (d *Device) requeueBarrier() blk.Status {
	d.reach(beforeRequeue)
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.noflushing.Load() {
		return blk.IOErr
	}
	d.barrier.again = true
	return blk.OK
}
