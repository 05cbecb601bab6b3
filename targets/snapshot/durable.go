package snapshot

import "udm/blk"

// durable is a write that is on stable storage when it is done, together with
// everything that completed before it.
type durable struct {
	p          *persistent
	bio, flush blk.Bio
	done       func(blk.Status)
}

func (d *durable) init(p *persistent, done func(blk.Status)) {
	d.p, d.done = p, done
	d.bio.End = d.written
	d.flush.End = func(b *blk.Bio) { done(b.Status()) }
}

func (d *durable) write(data []byte, sector uint64) {
	b := &d.bio
	b.Rearm()
	b.Op, b.Flags, b.Sector = blk.Write, blk.Preflush|blk.FUA, sector
	b.SetData(data)
	d.p.dev.Submit(b)
}

func (d *durable) written(b *blk.Bio) {
	if b.Status() != blk.OK || !d.p.flushes {
		d.done(b.Status())
		return
	}
	d.flush.Rearm()
	d.flush.Op = blk.Flush
	d.p.dev.Submit(&d.flush)
}
