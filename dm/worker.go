package dm

import "udm/blk"

// The worker: the work that sends waiting bios in order.
//
// Barriers (the kernel's 2.6.30 dm.c). A bio flagged Barrier waits for the
// worker, and so does all that is submitted after it until it has ended. The
// worker maps plain bios as it finds them; for a barrier it waits until nothing
// is in flight, sends it alone and without the flag, and goes on when it has
// ended:
//
//	idle ─ Barrier popped ─► draining ─ in flight = 0 ─► sent ─ all parts ended ─► idle
//	                             │ no data: ends here        │ requeued: back to the
//	                             ▼                           ▼ head of the waiting bios
//
// A suspend stops the worker between bios; a draining barrier keeps its place
// and goes on after resume. No cache of a lower device is flushed for a
// barrier: with volatile caches below, combine it with Preflush and FUA.

// barrier is the one barrier that a device may have at a time.
type barrier struct {
	orig  *blk.Bio // nil: none
	drain bool     // counted in draining
	sent  bool
	again bool    // a suspend pushed a part back: send it all again after resume
	bio   blk.Bio // stands in for orig below
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

// nextLocked decides what comes next.
func (d *Device) nextLocked() action {
	if p := d.flushed.Pop(); p != nil {
		return d.sendFlushedLocked(p)
	}
	// During a noflush suspend what was pushed back would be so again.
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

// sendFlushedLocked sends the data behind a preflush; while no bio may be
// mapped it puts the bio back before all that wait, and a barrier is sent again
// from its beginning. The count of the piece passes to the hold.
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

// waitAgainLocked puts a bio that had been sent before all that wait. A barrier
// that is draining came after it, so it waits again as well.
func (d *Device) waitAgainLocked(b *blk.Bio) {
	if br := &d.barrier; br.orig != nil && !br.sent {
		d.waiting.pushHead(br.orig)
		br.orig = nil
	}
	d.waiting.pushHead(b)
}

// advanceBarrierLocked takes the barrier one step on, if it can go on.
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

// endBarrier runs when every part of the barrier has ended.
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

// requeueBarrier decides about a part of the barrier that was pushed back: in a
// noflush suspend all of it is sent again, and the part counts as done.
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
