package dm

import "udm/blk"

// Requeue in two stages (drivers/md/dm.c and dm-io-rewind.c, Linux 6.0).
//
// The pieces of a split bio share the original, which has advanced by the time one
// of them is pushed back, so the original cannot be sent again for that piece. Stage
// one puts such a piece on slots.requeued; a work then makes another clone of the
// original for exactly the range of this piece, whose buffers have not changed, and
// makes the end of the original depend on it. Stage two, which follows at once for a
// piece that is not split, decides: during a noflush suspend the bio is queued before
// all that wait, to be submitted after the resume; otherwise it fails with IOErr.
//
// A piece counts as in flight until stage two has decided, so that a suspend cannot
// end before the bio is where the resume finds it.

func (p *piece) requeue() {
	d := p.dev
	if p.orig == &d.barrier.bio {
		p.complete(d.requeueBarrier())
		return
	}
	if !p.split {
		p.secondStage(p.orig)
		return
	}
	d.mu.Lock()
	d.requeued.PushHead(p)
	d.mu.Unlock()
	d.queue.Queue(d.requeue)
}

// requeuePieces is stage one's work.
func (d *Device) requeuePieces() {
	d.mu.Lock()
	ps := d.requeued.Take()
	d.mu.Unlock()
	for p := ps.Pop(); p != nil; p = ps.Pop() {
		p.secondStage(p.rebuild())
	}
}

// rebuild makes a bio for the range of the piece. Its end completes one hold on the
// original.
func (p *piece) rebuild() *blk.Bio {
	orig := p.orig
	// The original advances while its later pieces are cut, so only fields that
	// never change are read here.
	b := &blk.Bio{Op: orig.Op, Flags: orig.Flags, Bufs: orig.Bufs}
	b.Seek(p.pos, p.sectors)
	b.End = func(b *blk.Bio) { orig.Complete(b.Status()) }
	return b
}

func (p *piece) secondStage(b *blk.Bio) {
	d, sh := p.dev, p.shard
	if p.stats != nil {
		p.endStats(statusRequeue)
	}
	p.put()
	if !d.pushBack(b) {
		b.Complete(blk.IOErr)
	}
	d.leave(sh)
}

// pushBack queues b before all bios that wait if a noflush suspend is under way.
func (d *Device) pushBack(b *blk.Bio) bool {
	d.reach(beforeRequeue)
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.noflushing.Load() {
		return false
	}
	d.waitAgainLocked(b)
	return true
}
