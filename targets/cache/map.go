package cache

import (
	"sync/atomic"

	"udm/blk"
	"udm/dm"
	"udm/targets/internal/deferredset"
)

// hook is the per-bio data of a cache. Whoever owns the clone owns it.
type hook struct {
	cache   *cache
	clone   *dm.Clone
	sectors uint64 // counted in busy
	tick    bool
	counted bool // as a hit or a miss
	tried   bool // to be the promotion of its block
	in      *deferredset.Set
	entry   deferredset.Entry
	shards  [2]deferredset.Shard // of reads and of writes

	// Of a write that goes to both devices.
	twin   blk.Bio
	cb     uint32
	left   atomic.Int32
	halves [2]func(*blk.Bio) // twinDone and cloneDone, bound once
}

func (c *cache) NewPerIO() any {
	h := &hook{cache: c, shards: [2]deferredset.Shard{c.reads.Shard(), c.writes.Shard()}}
	h.halves = [2]func(*blk.Bio){h.twinDone, h.cloneDone}
	return h
}

func hookOf(b *dm.Clone) *hook { return b.PerIO.(*hook) }

// Map makes b's Sector an address of the origin.
func (c *cache) Map(b *dm.Clone) dm.Outcome {
	b.Sector = b.Offset()
	h := hookOf(b)
	h.clone, h.sectors, h.tick, h.counted, h.tried = b, 0, false, false, false
	switch {
	case b.Op == blk.Flush:
		return c.mapFlush(b)
	case b.Op == blk.Discard:
		return c.mapDiscard(b)
	case b.Sectors == 0:
		b.Complete(blk.OK)
		return dm.Submitted
	}
	return c.mapBlock(b)
}

// split returns the block of a sector and the offset of the sector in it.
func (c *cache) split(sector uint64) (block, off uint64) {
	if c.blockShift >= 0 {
		return sector >> c.blockShift, sector & (c.blockSectors - 1)
	}
	return sector / c.blockSectors, sector % c.blockSectors
}

// mapBlock maps a read or write. It is also called for bios that waited.
func (c *cache) mapBlock(b *dm.Clone) dm.Outcome {
	block, off := c.split(b.Sector)
	if block >= c.originBlocks { // a part of a block at the end, which is never cached
		c.launch(b)
		b.SetDev(c.origin)
		return dm.Remapped
	}
	write := b.Op != blk.Read
	c.mu.Lock()
	if write && !c.begun {
		return c.refuseUnlock(b)
	}
	if m := c.locks[block]; m != nil && (m.all || write) {
		return c.waitUnlock(m, b)
	}
	fast := write && c.mayStart(b) && (b.Sectors == c.blockSectors || c.discarded(block))
	cb, hit, work, queued := c.policy.Lookup(block, write, fast)
	if work != nil {
		m := c.lock(&migration{work: *work, bio: b, all: true})
		c.mu.Unlock()
		c.quiesceAll(m, m.takeBio)
		return dm.Submitted
	}
	c.count(b, hit, write)
	if hit {
		return c.mapHitUnlock(b, block, cb, off)
	}
	c.enter(b, block)
	if !c.ticking { // hits change nothing that must be seen before the next second
		c.ticking, hookOf(b).tick = true, true
	}
	c.mu.Unlock()
	if queued {
		c.wake()
	}
	b.SetDev(c.origin)
	return dm.Remapped
}

// mayStart reports whether a write may be a promotion itself; it tries that only once.
// Called with mu held.
func (c *cache) mayStart(b *dm.Clone) bool {
	return c.mode == Writeback && b.Flags&blk.NoWait == 0 && !c.readOnly && !c.stopped && !hookOf(b).tried
}

// refuseUnlock fails a write before the disk says that the cache is in use. Called with
// mu held.
func (c *cache) refuseUnlock(b *dm.Clone) dm.Outcome {
	st := blk.NoSpace
	if c.readOnly {
		st = blk.IOErr
	}
	c.mu.Unlock()
	b.Complete(st)
	return dm.Submitted
}

// waitUnlock lets b wait until the block is unlocked. Called with mu held.
func (c *cache) waitUnlock(m *migration, b *dm.Clone) dm.Outcome {
	defer c.mu.Unlock()
	if b.Flags&blk.NoWait == 0 {
		m.waiting.Push(b)
	} else {
		defer b.Complete(blk.WouldBlock)
	}
	return dm.Submitted
}

// mapHitUnlock maps a bio whose block is in the cache. Called with mu held.
func (c *cache) mapHitUnlock(b *dm.Clone, block uint64, cb uint32, off uint64) dm.Outcome {
	write := b.Op != blk.Read
	switch {
	case c.mode == Passthrough && write:
		return c.invalidateUnlock(b, block, cb)
	case c.mode == Passthrough:
		c.enter(b, block)
		c.mu.Unlock()
		b.SetDev(c.origin)
		return dm.Remapped
	}
	c.enter(b, block)
	both := write && c.mode == Writethrough && !c.isDirty(cb)
	if write && !both {
		c.setDirty(cb, true)
	}
	hold := b.Flags&blk.FUA != 0 && (c.changed || c.store.lost.Load())
	lost := hold && c.store.lost.Load()
	to := uint64(cb)*c.blockSectors + off
	if hold && !lost && !both {
		b.SetDev(c.fast)
		b.Sector = to
		c.deferred.Push(b)
		c.mu.Unlock()
		c.wake()
		return dm.Submitted
	}
	c.mu.Unlock()
	switch {
	case lost && !both:
		b.Complete(blk.IOErr)
		return dm.Submitted
	case both:
		c.writeBoth(b, cb, to)
		return dm.Submitted
	}
	b.SetDev(c.fast)
	b.Sector = to
	return dm.Remapped
}

// writeBoth writes to the origin and, at sector to, to the cache.
func (c *cache) writeBoth(b *dm.Clone, cb uint32, to uint64) {
	h := hookOf(b)
	h.cb = cb
	h.left.Store(2)
	h.twin.CloneFrom(&b.Bio)
	h.twin.Sector, h.twin.End = to, h.halves[0]
	b.Redirect(h.halves[1])
	b.SetDev(c.origin)
	c.fast.Submit(&h.twin)
	b.Issue()
}

func (h *hook) twinDone(*blk.Bio)  { h.half() }
func (h *hook) cloneDone(*blk.Bio) { h.half() }

// half ends one of two writes. If only one of them was successful the devices differ:
// then the block is dirty, so that what is read of it stays the same.
func (h *hook) half() {
	if h.left.Add(-1) > 0 {
		return
	}
	b := h.clone
	st := b.Status()
	if st == blk.OK {
		st = h.twin.Status()
	}
	if st != blk.OK {
		h.cache.mu.Lock()
		h.cache.setDirty(h.cb, true)
		h.cache.mu.Unlock()
	}
	b.Restore()
	b.Rearm()
	b.Complete(st)
}

// count counts a hit or a miss. Called with mu held.
func (c *cache) count(b *dm.Clone, hit, write bool) {
	h := hookOf(b)
	if h.counted {
		return
	}
	h.counted = true
	n := &c.stats.ReadMisses
	switch {
	case hit && write:
		n = &c.stats.WriteHits
	case hit:
		n = &c.stats.ReadHits
	case write:
		n = &c.stats.WriteMisses
	}
	*n++
}

// enter counts a bio that is about to be issued as in flight. Called with mu held, so
// that whoever has locked its block afterwards waits for it.
func (c *cache) enter(b *dm.Clone, block uint64) {
	h := hookOf(b)
	h.in = c.reads
	i := 0
	if b.Op != blk.Read {
		h.in, i = c.writes, 1
		c.setDiscarded(block*c.blockSectors/c.discardSectors, false)
	}
	h.entry = h.in.Enter(&h.shards[i])
	c.launch(b)
}

// launch counts the sectors of a bio in flight.
func (c *cache) launch(b *dm.Clone) {
	h := hookOf(b)
	if h.sectors = b.Sectors; h.sectors > 0 {
		c.busy.Add(int64(h.sectors))
	}
}

// EndIO counts the bio out.
func (c *cache) EndIO(b *dm.Clone, st blk.Status) (blk.Status, dm.EndOutcome) {
	h := hookOf(b)
	if h.sectors > 0 && c.busy.Add(-int64(h.sectors)) == 0 && !c.used.Load() {
		c.used.Store(true)
	}
	h.sectors = 0
	if h.tick {
		h.tick = false
		c.tickPolicy()
	}
	if h.entry.In() {
		e := h.entry
		h.entry = deferredset.Entry{}
		h.in.Leave(e)
	}
	return st, dm.EndDone
}

func (c *cache) tickPolicy() {
	c.mu.Lock()
	c.policy.Tick(c.env.Now())
	c.ticking = false
	c.mu.Unlock()
}
