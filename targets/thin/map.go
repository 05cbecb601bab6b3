package thin

import (
	"syscall"

	"udm/blk"
	"udm/dm"
	"udm/internal/invariants"
	"udm/targets/internal/deferredset"
	"udm/targets/internal/prison"
)

// hook is the per-bio data of a thin. Whoever owns the clone owns it.
type hook struct {
	allIO, sharedRead           deferredset.Entry
	allIOShard, sharedReadShard deferredset.Shard
	cell                        *prison.Cell // released when this discard ends
	requeue                     bool         // to be requeued when it ends
	refused                     bool         // a write to a mapped block that found no space
	_                           [16]byte     // pads to a cache line: each hook is used on one processor
}

func (t *thin) NewPerIO() any {
	return &hook{allIOShard: t.pool.allIO.Shard(), sharedReadShard: t.pool.sharedIO.Shard()}
}

func hookOf(c *dm.Clone) *hook { return c.PerIO.(*hook) }

// Map sends c to the pool device at once if it can. It makes c.Sector relative to the
// start of the target.
func (t *thin) Map(c *dm.Clone) dm.Outcome {
	c.Sector = c.Offset()
	if c.Op <= blk.Write && t.mapCached(c) {
		return dm.Remapped
	}
	return t.mapSlowly(c)
}

// mapCached maps c if the cache permits it. The package comment explains the order of
// the steps.
func (t *thin) mapCached(c *dm.Clone) bool {
	tab := t.vol.cache.table.Load()
	block, off := t.split(c.Sector)
	word, tag := tab.at(block)
	w := word.Load()
	if !match(w, tag) || w&sharedBit != 0 && c.Op != blk.Read || t.requeue.Load() {
		return false
	}
	h := hookOf(c)
	if invariants.Enabled && t.pool.tests.beforeEnter != nil {
		t.pool.tests.beforeEnter()
	}
	t.enter(h, w&sharedBit != 0)
	if t.vol.cache.table.Load() != tab || word.Load() != w || c.Flags&blk.FUA != 0 && t.vol.changed.Load() {
		t.leave(h)
		return false
	}
	c.Dev = t.poolDev.Device
	c.Sector = w&(1<<dataBits-1)*t.blockSectors + off
	return true
}

// split returns the block of a sector and the offset of the sector in it.
func (t *thin) split(sector uint64) (block, off uint64) {
	if t.blockShift >= 0 {
		return sector >> t.blockShift, sector & (t.blockSectors - 1)
	}
	return sector / t.blockSectors, sector % t.blockSectors
}

// enter adds a clone that is about to be issued to the deferred sets.
func (t *thin) enter(h *hook, shared bool) {
	h.allIO = t.pool.allIO.Enter(&h.allIOShard)
	if shared {
		h.sharedRead = t.pool.sharedIO.Enter(&h.sharedReadShard)
	}
}

// leave undoes enter. It may run works that waited for the clone.
func (t *thin) leave(h *hook) {
	if h.sharedRead.In() {
		e := h.sharedRead
		h.sharedRead = deferredset.Entry{}
		t.pool.sharedIO.Leave(e)
	}
	if h.allIO.In() {
		e := h.allIO
		h.allIO = deferredset.Entry{}
		t.pool.allIO.Leave(e)
	}
}

// EndIO removes the clone from the deferred sets and releases a discard's cell.
func (t *thin) EndIO(c *dm.Clone, st blk.Status) (blk.Status, dm.EndOutcome) {
	if st == blk.NoSpace && t.waitForSpace(c) {
		return st, dm.EndIncomplete
	}
	h := hookOf(c)
	cell, requeue := h.cell, h.requeue
	t.leave(h)
	if cell != nil {
		h.cell = nil
		t.deferCell(cell)
	}
	if requeue {
		h.requeue = false
		return st, dm.EndRequeue
	}
	return st, dm.EndDone
}

// mapSlowly maps a bio whose block is not in the cache.
func (t *thin) mapSlowly(c *dm.Clone) dm.Outcome {
	switch {
	case t.requeue.Load():
		return dm.Requeue
	case t.pool.mode() == modeFail:
		return dm.Kill
	case c.Op == blk.Write && c.Sectors == 0:
		c.Complete(blk.OK) // allocates nothing
	case c.Op == blk.Flush && !t.vol.changed.Load():
		t.sendFlush(c)
		return dm.Remapped
	case c.Flags&blk.NoWait != 0:
		c.Complete(blk.WouldBlock)
	case c.Op > blk.Write || c.Flags&blk.FUA != 0:
		t.deferBio(c)
	default:
		block, _ := t.split(c.Sector)
		tab := t.vol.cache.table.Load()
		if cell := t.detain(block, c); cell != nil {
			return t.lookUp(cell, c, block, tab)
		}
	}
	return dm.Submitted
}

func (t *thin) detain(block uint64, c *dm.Clone) *prison.Cell {
	return t.pool.prison.Detain(prison.Block(true, t.vol.id, block), c)
}

// lookUp maps c, the holder of its block's cell, if the metadata in memory suffices.
// tab was loaded from the cache before.
func (t *thin) lookUp(cell *prison.Cell, c *dm.Clone, block uint64, tab *table) dm.Outcome {
	m, err := t.vol.td.TryFind(block)
	switch {
	case err == nil && !(m.Shared && c.Op == blk.Write):
		t.enter(hookOf(c), m.Shared)
		t.vol.cache.fill(tab, block, m)
		t.deferCell(cell)
		t.remap(c, m.Block)
		return dm.Remapped
	case err == syscall.ENODATA && c.Op == blk.Read:
		t.enter(hookOf(c), false)
		t.deferCell(cell)
		if t.readUnmapped(c) {
			return dm.Remapped
		}
		c.Complete(blk.OK)
		return dm.Submitted
	case err == nil, err == syscall.ENODATA, err == syscall.EAGAIN:
		t.mu.Lock()
		t.cells = append(t.cells, cell)
		t.mu.Unlock()
		t.pool.wakeFor(t)
		return dm.Submitted
	}
	t.deferCell(cell)
	return dm.Kill
}

// readUnmapped prepares a read of an unmapped block. The part within the external
// origin is read from there, the rest is zero-filled. It reports whether there is
// anything to read.
func (t *thin) readUnmapped(c *dm.Clone) bool {
	size := uint64(0)
	if t.origin != nil {
		size = t.originSize.Load()
	}
	if c.EndSector() > size {
		c.Zero()
	}
	if c.Sector >= size {
		return false
	}
	c.Sectors = min(c.Sectors, size-c.Sector)
	c.SetDev(t.origin)
	return true
}

// remap directs c to a data block of the pool device.
func (t *thin) remap(c *dm.Clone, block uint64) {
	_, off := t.split(c.Sector)
	c.SetDev(t.poolDev)
	c.Sector = block*t.blockSectors + off
}

// sendFlush directs a flush to the pool device.
func (t *thin) sendFlush(c *dm.Clone) {
	t.enter(hookOf(c), false)
	c.SetDev(t.poolDev)
	c.Sector = 0
}
