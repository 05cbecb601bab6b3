package dm

import "udm/blk"

// What does not go inline: deferred bios, flushes, discards and write-zeroes.

// submitSlowly decides about a bio that Submit did not map at once.
func (d *Device) submitSlowly(b *blk.Bio) {
	d.mu.Lock()
	t := d.fast.Load()
	if t == nil || b.Flags&blk.Barrier != 0 {
		d.deferLocked(b)
		return
	}
	sh := d.holdLocked()
	d.mu.Unlock()
	d.process(t, b, sh)
}

// deferLocked queues b behind what waits already and releases mu. A bio for
// which nobody can wait fails instead.
func (d *Device) deferLocked(b *blk.Bio) {
	if d.state.dead {
		d.mu.Unlock()
		b.Complete(blk.IOErr)
		return
	}
	waits := !d.mayMapLocked() // for a table or a resume, not just its turn
	if waits && b.Flags&(blk.NoWait|blk.Readahead) != 0 {
		d.mu.Unlock()
		b.Complete(refusal(b))
		return
	}
	d.deferred.Push(b)
	if !waits {
		d.fast.Store(nil)
		d.queue.Queue(d.work)
	}
	d.mu.Unlock()
}

func refusal(b *blk.Bio) blk.Status {
	if b.Flags&blk.NoWait != 0 {
		return blk.WouldBlock
	}
	return blk.IOErr
}

// mayMapLocked reports whether the worker may map bios: there is a table and
// no suspend. Called with mu held.
func (d *Device) mayMapLocked() bool { return d.live != nil && d.state.runs() }

// holdLocked counts one bio in flight while mu is held, so that a suspend that
// begins after cannot overlook it. leave undoes it.
func (d *Device) holdLocked() *shard {
	sh := &d.shards[0]
	sh.n.Add(1)
	return sh
}

// process maps one bio of any op through t under a hold of its caller, which it
// releases.
func (d *Device) process(t *Table, b *blk.Bio, sh *shard) {
	switch {
	case b.Op == blk.Flush || b.Flags&blk.Preflush != 0:
		d.sendFlush(t, b)
	case b.Op.HasData():
		d.mapHeld(t, b)
	default:
		d.mapRange(t, b)
	}
	d.leave(sh)
}

// mapHeld is splitAndMap for a bio whose caller holds the device: the worker's,
// which must go through although submitters are kept out.
func (d *Device) mapHeld(t *Table, b *blk.Bio) {
	for {
		ti := t.find(b.Sector)
		if ti == nil {
			b.Complete(blk.IOErr)
			return
		}
		p := ti.get()
		p.count()
		if !p.start1(b, ti.pieceLen(b)) {
			return
		}
	}
}

// mapRange sends a discard or write-zeroes, cut at target borders only.
func (d *Device) mapRange(t *Table, b *blk.Bio) {
	for {
		ti := t.find(b.Sector)
		if ti == nil {
			b.Complete(blk.IOErr)
			return
		}
		n := ti.clones(b.Op)
		if n == 0 {
			b.Complete(blk.NotSupported)
			return
		}
		p := ti.get()
		p.count()
		if n == 1 {
			if !p.start1(b, ti.pieceLen(b)) {
				return
			}
		} else if !p.startMany(b, ti.pieceLen(b), n) {
			return
		}
	}
}

// startMany is start1 with n clones of the same range, told apart by Num.
func (p *piece) startMany(b *blk.Bio, sectors uint64, n int) (more bool) {
	p.orig, p.sectors = b, sectors
	if p.dev.stats.Load() != nil {
		p.beginStats()
	}
	proto := blk.Bio{Op: b.Op, Flags: b.Flags, Sector: b.Sector, Sectors: sectors}
	if more = sectors < b.Sectors; more {
		p.cut(b, sectors)
	}
	p.begin(n)
	p.sendClones(p.target, &proto, n)
	p.partDone(blk.OK)
	return more
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
	d.queue.Queue(d.work)
}
