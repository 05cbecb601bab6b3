package dm

import "udm/blk"

// Requeue in two stages (drivers/md/dm.c and dm-io-rewind.c, Linux 6.0).
//
// The pieces of a split bio share the original, which has moved on by the time
// one of them is pushed back, so the original itself cannot be sent again for
// it. Stage one puts such a piece on slots.requeued; a work then clones the
// original once more, for exactly this piece's range of its untouched buffers,
// and chains the clone to it. Stage two, at once for pieces that are not split,
// decides: during a noflush suspend the bio goes before all that wait,
// to be submitted after resume; otherwise it fails with IOErr.
//
// A piece counts as in flight until stage two has decided, so that a suspend
// cannot be over before the bio is where resume finds it.

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

// rebuild makes a bio of its own for the piece, whose end is a part of the
// original's.
func (p *piece) rebuild() *blk.Bio {
	orig := p.orig
	// The original's place moves while its later pieces are cut: only what
	// never changes is read here.
	b := &blk.Bio{Op: orig.Op, Flags: orig.Flags, Bufs: orig.Bufs}
	b.Seek(p.pos, p.sectors)
	b.End = func(b *blk.Bio) { orig.Complete(b.Status()) }
	return b
}

func (p *piece) secondStage(b *blk.Bio) {
	d, sh := p.dev, p.shard
	if p.stats != nil {
		p.endStats()
	}
	p.put()
	if !d.pushBack(b) {
		b.Complete(blk.IOErr)
	}
	d.leave(sh)
}

// pushBack puts b before all that wait if a noflush suspend is under way.
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
