package writecache

import (
	"udm/blk"
	"udm/dm"
)

// where says where a clone has gone.
type where uint8

const (
	elsewhere where = iota
	toCache         // counted in reads or writes
	toOrigin        // a write, counted in around
)

// hook is the per-bio data. The owner of the clone owns it.
type hook struct {
	where   where
	epoch   int   // of reads or writes
	first   int32 // of the blocks of the cache that it goes to
	blocks  int32
	fills   bool // it is the first write of these
	durable bool // a FUA write that ends after a commit
}

func (w *writecache) NewPerIO() any { return new(hook) }

func hookOf(c *dm.Clone) *hook { return c.PerIO.(*hook) }

func (w *writecache) Map(c *dm.Clone) dm.Outcome {
	*hookOf(c) = hook{}
	switch {
	case c.Op == blk.Flush:
		return w.mapFlush(c)
	case c.Sectors == 0:
		c.Complete(blk.OK)
		return dm.Submitted
	}
	c.Sector = c.Offset()
	if (c.Sector|c.Sectors)&(w.blockSectors-1) != 0 {
		return dm.Kill
	}
	if c.Op == blk.Discard {
		return w.mapDiscard(c)
	}
	return w.mapData(c)
}

// mapFlush makes one clone wait for a commit. The other one goes to the origin.
func (w *writecache) mapFlush(c *dm.Clone) dm.Outcome {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.err != nil:
		return dm.Kill
	case c.Num > 0:
		c.SetDev(w.origin)
		return dm.Remapped
	}
	w.stats.Flushes++
	w.inbox.flushes.Push(c)
	w.queue.Queue(w.passWork)
	return dm.Submitted
}

func (w *writecache) mapDiscard(c *dm.Clone) dm.Outcome {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stats.Discarded += c.Sectors / w.blockSectors
	if w.err != nil {
		return dm.Kill
	}
	w.inbox.discards.Push(c)
	w.queue.Queue(w.passWork)
	return dm.Submitted
}

// mapData maps a read or write. It is also called for those that have waited, which have
// one block.
func (w *writecache) mapData(c *dm.Clone) dm.Outcome {
	w.mu.Lock()
	list := w.route(c)
	if list == nil {
		w.mu.Unlock()
		return dm.Remapped
	}
	if w.err != nil && c.Op != blk.Read {
		w.mu.Unlock()
		return dm.Kill
	}
	w.accept(c, w.blockSectors)
	if c.Flags&blk.NoWait != 0 {
		w.mu.Unlock()
		c.Complete(blk.WouldBlock)
		return dm.Submitted
	}
	list.Push(c)
	w.mu.Unlock()
	return dm.Submitted
}

// route sends a clone to where its first block is, with as many more as are in the same
// place, or returns the list that it has to wait in. Called with mu held.
func (w *writecache) route(c *dm.Clone) *dm.CloneList {
	if c.Op == blk.Read {
		return w.routeRead(c)
	}
	return w.routeWrite(c)
}

func (w *writecache) accept(c *dm.Clone, sectors uint64) {
	if sectors < c.Sectors {
		c.Accept(sectors)
	}
}

func (w *writecache) routeRead(c *dm.Clone) *dm.CloneList {
	i := w.entries.readable(c.Sector)
	if i == none {
		w.accept(c, w.untilCached(c))
		w.stats.Reads += c.Sectors / w.blockSectors
		c.SetDev(w.origin)
		return nil
	}
	if w.entries.all[i].state == filling {
		return &w.inbox.waiting
	}
	n := uint64(1)
	for last := i; n*w.blockSectors < c.Sectors; n++ {
		if last = w.entries.following(last); last == none {
			break
		}
	}
	w.stats.Reads += n
	w.stats.ReadHits += n
	w.toCache(c, i, n, &w.reads)
	return nil
}

// untilCached is the length of c up to the first block that is in the cache.
func (w *writecache) untilCached(c *dm.Clone) uint64 {
	n := w.blockSectors
	for n < c.Sectors && w.entries.find(c.Sector+n) == none {
		n += w.blockSectors
	}
	return n
}

func (w *writecache) toCache(c *dm.Clone, i int32, blocks uint64, f *inFlight) {
	w.accept(c, blocks*w.blockSectors)
	c.SetDev(w.fast)
	c.Sector = w.sector(i)
	h := hookOf(c)
	h.where, h.epoch, h.first, h.blocks = toCache, f.enter(), i, int32(blocks)
}

func (w *writecache) routeWrite(c *dm.Clone) *dm.CloneList {
	if w.err != nil {
		w.stats.Writes += c.Sectors / w.blockSectors
		return &w.inbox.blocked
	}
	i := w.entries.find(c.Sector)
	if i != none {
		switch e := &w.entries.all[i]; {
		case e.state == filling:
			return &w.inbox.waiting
		case e.state == live:
			w.overwrite(c, i)
			return nil
		}
		w.stats.HitsCommitted++
	} else if w.cleaner || w.line.MetadataOnly {
		w.writeAround(c)
		return nil
	}
	n := w.takeBlocks(c)
	switch {
	case n > 0:
	case i == none:
		w.writeAround(c)
	default:
		w.stats.BlockedOnFreelist++
		return &w.inbox.blocked
	}
	return nil
}

// overwrite writes to blocks where they are.
func (w *writecache) overwrite(c *dm.Clone, i int32) {
	if w.entries.all[i].seq < w.committed {
		w.stats.HitsCommitted++
	} else {
		w.stats.HitsUncommitted++
	}
	n, last, durable := uint64(1), i, true
	for at := i; ; n++ {
		last = at
		durable = durable && w.entries.all[last].seq < w.committed
		w.overwrote = w.overwrote || w.entries.all[last].seq < w.seq
		if n*w.blockSectors == c.Sectors {
			break
		}
		if at = w.entries.following(last); at == none {
			break
		}
	}
	w.toCache(c, i, n, &w.writes)
	w.wrote(c, n, durable)
}

// takeBlocks writes to free blocks that follow each other, and returns how many they are.
func (w *writecache) takeBlocks(c *dm.Clone) (n uint64) {
	first, want := none, none
	for at := c.Sector; n*w.blockSectors < c.Sectors && (n == 0 || w.entries.find(at) == none); at += w.blockSectors {
		i := w.freeSet.take(want)
		if i == none {
			break
		}
		if n == 0 {
			first = i
		}
		w.fill(i, at)
		n++
		want = i + 1
	}
	if n == 0 {
		return 0
	}
	w.stats.Allocated++
	w.checkHigh()
	w.toCache(c, first, n, &w.writes)
	hookOf(c).fills = true
	w.wrote(c, n, false)
	return n
}

// fill makes a block that was free the newest one of a sector.
func (w *writecache) fill(i int32, sector uint64) {
	e := &w.entries.all[i]
	e.sector, e.seq, e.state = sector, w.seq, filling
	if w.maxAge >= 0 {
		e.age = w.env.Now()
	}
	w.entries.insert(i)
	w.fresh++
	w.counted++
}

// checkHigh begins to write back above the high watermark.
func (w *writecache) checkHigh() {
	if w.freeSet.size+w.writing <= w.high && !w.draining {
		w.draining = true
		w.queue.Queue(w.passWork)
	}
}

// wrote counts the blocks of a write to the cache, and arranges for their commit. Only
// where the metadata on disk say already that the blocks are there can the device make
// them durable by itself.
func (w *writecache) wrote(c *dm.Clone, n uint64, durable bool) {
	w.stats.Writes += n
	w.stats.Allocated += n - 1
	if c.Flags&blk.FUA != 0 && !durable {
		c.Flags &^= blk.FUA
		hookOf(c).durable = true
	}
	switch {
	case w.counted >= w.autoBlocks:
		w.counted, w.due = 0, true
		w.queue.Queue(w.passWork)
	case !w.armed:
		w.armed = true
		w.queue.QueueAfter(w.autoWork, w.autoTime)
	}
}

// writeAround writes to the origin what is not in the cache.
func (w *writecache) writeAround(c *dm.Clone) {
	w.accept(c, w.untilCached(c))
	n := c.Sectors / w.blockSectors
	w.stats.Around += n
	w.stats.Writes += n
	c.SetDev(w.origin)
	hookOf(c).where = toOrigin
	w.around++
}

// EndIO counts a clone out. A FUA write that the metadata on disk do not know yet goes on
// to the owner.
func (w *writecache) EndIO(c *dm.Clone, st blk.Status) (blk.Status, dm.EndOutcome) {
	h := hookOf(c)
	if h.where == elsewhere {
		return st, dm.EndDone
	}
	w.mu.Lock()
	last := w.left(c.Op, h, st)
	commit := h.durable && st == blk.OK
	if h.where = elsewhere; commit {
		w.inbox.flushes.Push(c)
	}
	w.mu.Unlock()
	if last {
		w.wait.Wake()
	}
	if !commit {
		return st, dm.EndDone
	}
	w.queue.Queue(w.passWork)
	return st, dm.EndIncomplete
}

// left counts an I/O out and reports whether somebody may wait for that. Called with mu
// held.
func (w *writecache) left(op blk.Op, h *hook, st blk.Status) bool {
	switch {
	case h.where == toOrigin:
		if w.around--; w.around == 0 {
			w.calmSince = w.env.Now()
		}
		return false
	case op == blk.Read:
		return w.reads.leave(h.epoch)
	case h.fills:
		w.filled(h, st)
	}
	return w.writes.leave(h.epoch)
}

// filled makes blocks live after their first write, or takes them out again if it has
// failed: what was there before counts.
func (w *writecache) filled(h *hook, st blk.Status) {
	for i := h.first; i < h.first+h.blocks; i++ {
		if e := &w.entries.all[i]; st == blk.OK {
			e.state = live
		} else {
			e.state = leaving
			w.entries.unlink(i)
			w.inbox.dropped = append(w.inbox.dropped, i)
		}
	}
	if !w.inbox.waiting.Empty() || len(w.inbox.dropped) > 0 || w.held {
		w.queue.Queue(w.passWork)
	}
}
