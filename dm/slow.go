package dm

import "udm/blk"

// Bios that are not mapped inline: those that wait, flushes, discards and
// write-zeroes.
//
// A function that decides about bios runs with mu held and returns an action, which
// is performed after mu has been released.

// action is what is to be done with a bio.
type action struct {
	do    verdict
	bio   *blk.Bio
	table *Table     // mapBio: the table to map it through
	hold  *shard     // to be left afterwards; nil: none
	st    blk.Status // endBio: the status
}

type verdict uint8

const (
	wait   verdict = iota // do nothing until something else happens
	again                 // do nothing, but decide about the next bio
	mapBio                // map the bio
	endBio                // complete the bio
)

func (d *Device) perform(a action) {
	switch a.do {
	case mapBio:
		d.process(a.table, a.bio)
	case endBio:
		a.bio.Complete(a.st)
	}
	if a.hold != nil {
		d.leave(a.hold)
	}
}

// submitSlowly handles a bio that Submit could not map inline.
func (d *Device) submitSlowly(b *blk.Bio) {
	d.mu.Lock()
	a := d.admitLocked(b)
	d.mu.Unlock()
	d.perform(a)
}

// admitLocked lets b go or queues it behind the bios that wait already. While the
// device has no table or is suspended, a bio that must not wait fails instead.
func (d *Device) admitLocked(b *blk.Bio) action {
	maps := d.mayMapLocked()
	switch {
	case d.state.dead:
		return action{do: endBio, bio: b, st: blk.IOErr}
	case maps && !d.inOrderLocked(b):
		return d.mapLocked(b)
	case !maps && b.Flags&(blk.NoWait|blk.Readahead) != 0:
		return action{do: endBio, bio: b, st: refusal(b)}
	}
	d.waiting.push(b)
	if maps {
		d.fast.Store(nil)
		d.queue.Queue(d.send)
	}
	return action{}
}

func refusal(b *blk.Bio) blk.Status {
	if b.Flags&blk.NoWait != 0 {
		return blk.WouldBlock
	}
	return blk.IOErr
}

// mayMapLocked reports whether bios may be mapped: the device has a table and no
// suspend is in force.
func (d *Device) mayMapLocked() bool { return d.live != nil && d.state.runs() }

// inOrderLocked reports whether b has to stay behind the bios that wait: because of a
// barrier, or because it overlaps with one of them.
func (d *Device) inOrderLocked(b *blk.Bio) bool {
	return b.Flags&blk.Barrier != 0 || d.barrier.orig != nil || d.waiting.barriers > 0 || d.waiting.overlaps(b)
}

// mapLocked lets b go under a hold.
func (d *Device) mapLocked(b *blk.Bio) action {
	return action{do: mapBio, bio: b, table: d.live, hold: d.holdLocked()}
}

// process maps one bio of any op through t. The caller has a hold.
func (d *Device) process(t *Table, b *blk.Bio) {
	switch {
	case b.Op == blk.Flush || b.Flags&blk.Preflush != 0:
		d.sendFlush(t, d.flushable(b))
	case b.Op.HasData():
		d.mapHeld(t, b)
	default:
		d.mapRange(t, b)
	}
}

// begin makes the piece wait for n clones and for one part of its sender.
func (p *piece) begin(n int) {
	p.status.Store(uint32(blk.OK))
	p.parts.Store(int32(n) + 1)
}

// sendClones maps n clones of proto through ti.
func (p *piece) sendClones(ti *Target, proto *blk.Bio, n int) {
	for i := range n {
		c := &Clone{}
		c.init(p, ti)
		c.CloneFrom(proto)
		c.Num = i
		c.run()
	}
}

// flushable returns a copy of b if b has data, which is sent after the flush without
// the Preflush flag: the flags of b itself belong to its submitter.
func (d *Device) flushable(b *blk.Bio) *blk.Bio {
	if b.Sectors == 0 || b == &d.barrier.bio { // which is such a copy already
		return b
	}
	s := &blk.Bio{}
	s.CloneFrom(b)
	s.End = func(s *blk.Bio) { b.Complete(s.Status()) }
	return s
}

// sendFlush sends flush clones for b to every target that wants them. After the last
// one has ended, a bio with data continues without its Preflush flag; see
// afterFlush.
func (d *Device) sendFlush(t *Table, b *blk.Bio) {
	p := t.targets[0].get()
	p.count()
	p.orig, p.sectors, p.flush = b, 0, true
	if d.stats.Load() != nil {
		p.beginStats()
	}
	n := 0
	for _, ti := range t.targets {
		n += ti.NumFlush
	}
	p.begin(n)
	proto := blk.Bio{Op: blk.Flush, Flags: b.Flags & blk.NoWait}
	for _, ti := range t.targets {
		proto.Sector = ti.Begin // so that targets can map it like any other bio
		p.sendClones(ti, &proto, ti.NumFlush)
	}
	p.partDone(blk.OK)
}

// afterFlush passes a piece whose flush is done and whose bio has data to the worker.
// The piece stays in flight until the worker has sent the data.
func (d *Device) afterFlush(p *piece) {
	d.mu.Lock()
	p.orig.Flags &^= blk.Preflush
	d.flushed.Push(p)
	d.mu.Unlock()
	d.queue.Queue(d.send)
}
