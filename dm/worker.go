package dm

import "udm/blk"

// The worker: the work that sends deferred bios in order.
//
// Barriers (the kernel's 2.6.30 dm.c). A bio flagged Barrier, and all that is
// submitted after it until the queue is empty again, goes through the deferred
// bios. The worker maps plain bios as it finds them; for a barrier it waits
// until nothing is in flight, sends it alone and without the flag, and goes on
// when it has ended:
//
//	idle ─ Barrier popped ─► draining ─ in flight = 0 ─► sent ─ all parts ended ─► idle
//	                             │ no data: ends here        │ requeued: back to the
//	                             ▼                           ▼ head of the deferred bios
//
// A suspend stops the worker between bios; a draining barrier keeps its place
// and goes on after resume. No cache of a lower device is flushed for a
// barrier: with volatile caches below, combine it with Preflush and FUA.

// barrier is the one barrier that a device may have at a time.
type barrier struct {
	orig  *blk.Bio // nil: none
	drain bool     // counted in Device.draining
	sent  bool
	again bool    // a suspend pushed a part back: send it all again after resume
	bio   blk.Bio // stands in for orig below
}

func (d *Device) processDeferred() {
	for d.processNext() {
	}
}

// processNext sends one bio and reports whether there may be more to send.
func (d *Device) processNext() bool {
	d.mu.Lock()
	if p := d.flushed.Pop(); p != nil {
		d.sendFlushedLocked(p)
		return true
	}
	// During a noflush suspend what was pushed back would be so again.
	if !d.mayMapLocked() || d.noflushing.Load() {
		d.mu.Unlock()
		return false
	}
	if d.barrier.orig != nil {
		return d.advanceBarrierLocked()
	}
	b := d.deferred.Pop()
	switch {
	case b == nil:
		d.fast.Store(d.live)
		d.mu.Unlock()
		return false
	case b.Flags&blk.Barrier != 0:
		d.barrier.orig = b
		d.mu.Unlock()
		return true
	}
	d.sendLocked(b)
	return true
}

// sendLocked maps b under a hold. It releases mu.
func (d *Device) sendLocked(b *blk.Bio) {
	t, sh := d.live, d.holdLocked()
	d.mu.Unlock()
	d.process(t, b, sh)
}

// sendFlushedLocked sends the data behind a preflush; while no bio may be
// mapped it puts the bio back before all deferred ones. It releases mu.
func (d *Device) sendFlushedLocked(p *piece) {
	b, sh := p.orig, p.shard
	if !d.mayMapLocked() {
		d.putBackLocked(b)
		p.put()
		d.leave(sh)
		return
	}
	t, hold := d.live, d.holdLocked()
	sh.n.Add(-1) // not leave: the hold has taken over
	d.mu.Unlock()
	p.put()
	d.process(t, b, hold)
}

// putBackLocked defers a bio whose preflush is done; a barrier is sent again
// from its beginning. It releases mu.
func (d *Device) putBackLocked(b *blk.Bio) {
	if b != &d.barrier.bio {
		d.deferAgainLocked(b)
		d.mu.Unlock()
		return
	}
	d.barrier.again = true
	d.mu.Unlock()
	b.Complete(blk.OK)
}

// deferAgainLocked puts a bio that had been sent before all deferred ones. A
// barrier that is draining came after it, so it becomes a deferred one again.
func (d *Device) deferAgainLocked(b *blk.Bio) {
	if br := &d.barrier; br.orig != nil && !br.sent {
		d.deferred.PushHead(br.orig)
		br.orig = nil
	}
	d.deferred.PushHead(b)
}

// advanceBarrierLocked takes the barrier one step on, if it can go on. It
// releases mu.
func (d *Device) advanceBarrierLocked() bool {
	br := &d.barrier
	if br.sent || !d.drainedLocked() {
		d.mu.Unlock()
		return false
	}
	if orig := br.orig; orig.Op == blk.Write && orig.Sectors == 0 {
		br.orig = nil
		d.mu.Unlock()
		orig.Complete(blk.OK)
		return true
	}
	br.sent = true
	br.bio.CloneFrom(br.orig)
	br.bio.Flags &^= blk.Barrier
	br.bio.End = d.endBarrier
	d.sendLocked(&br.bio)
	return true
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
		d.deferred.PushHead(orig)
	}
	d.mu.Unlock()
	if !again {
		orig.Complete(st)
	}
	d.queue.Queue(d.work)
}

// requeueBarrier decides about a part of the barrier that was pushed back: in a
// noflush suspend all of it is sent again, and the part counts as done.
func (d *Device) requeueBarrier() blk.Status {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.noflushing.Load() {
		return blk.IOErr
	}
	d.barrier.again = true
	return blk.OK
}
