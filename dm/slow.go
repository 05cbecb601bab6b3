package dm

import "udm/blk"

// What does not go inline: bios that wait, flushes, discards and write-zeroes.
//
// Whoever decides about bios holds mu and returns an action; it is performed
// when mu has been released.

// action is what to do with a bio.
type action struct {
	do    verdict
	bio   *blk.Bio
	table *Table     // mapBio: to map it through
	hold  *shard     // to be left afterwards; nil: none
	st    blk.Status // endBio: what with
}

type verdict uint8

const (
	wait   verdict = iota // nothing, before something else happens
	again                 // nothing, but there may be more to decide about
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

// submitSlowly decides about a bio that Submit did not map at once.
func (d *Device) submitSlowly(b *blk.Bio) {
	d.mu.Lock()
	a := d.admitLocked(b)
	d.mu.Unlock()
	d.perform(a)
}

// admitLocked lets b go, or queues it behind what waits already. A bio for which
// nobody can wait fails instead.
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

// mayMapLocked reports whether bios may be mapped: there is a table and no
// suspend. Called with mu held.
func (d *Device) mayMapLocked() bool { return d.live != nil && d.state.runs() }

// inOrderLocked reports whether b has to stay behind bios that wait: because of
// a barrier, or because it touches what one of them is about.
func (d *Device) inOrderLocked(b *blk.Bio) bool {
	return b.Flags&blk.Barrier != 0 || d.barrier.orig != nil || d.waiting.barriers > 0 || d.waiting.overlaps(b)
}

// mapLocked lets b go under a hold.
func (d *Device) mapLocked(b *blk.Bio) action {
	return action{do: mapBio, bio: b, table: d.live, hold: d.holdLocked()}
}

// process maps one bio of any op through t, under a hold of its caller.
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

// begin makes the piece wait for n clones and for its sender's own part.
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

// flushable stands in for a bio that has data to be sent after its flush,
// without the flag: the flags of b are its submitter's.
func (d *Device) flushable(b *blk.Bio) *blk.Bio {
	if b.Sectors == 0 || b == &d.barrier.bio { // which is a stand-in already
		return b
	}
	s := &blk.Bio{}
	s.CloneFrom(b)
	s.End = func(s *blk.Bio) { b.Complete(s.Status()) }
	return s
}

// sendFlush sends b's flush clones to every target that wants them. When all
// are done a bio with data goes on without its Preflush flag: see afterFlush.
func (d *Device) sendFlush(t *Table, b *blk.Bio) {
	p := t.targets[0].get()
	p.count()
	p.orig, p.sectors, p.flush = b, 0, true
	n := 0
	for _, ti := range t.targets {
		n += ti.NumFlush
	}
	p.begin(n)
	proto := blk.Bio{Op: blk.Flush, Flags: b.Flags & blk.NoWait}
	for _, ti := range t.targets {
		proto.Sector = ti.Begin // so that targets need no special case
		p.sendClones(ti, &proto, ti.NumFlush)
	}
	p.partDone(blk.OK)
}

// afterFlush takes a piece whose flush phase is done and whose bio has data. It
// stays in flight until the worker has sent the data.
func (d *Device) afterFlush(p *piece) {
	d.mu.Lock()
	p.orig.Flags &^= blk.Preflush
	d.flushed.Push(p)
	d.mu.Unlock()
	d.queue.Queue(d.send)
}
