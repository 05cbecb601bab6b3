package cache

import (
	"udm/blk"
	"udm/dm"
)

// mapFlush flushes both devices, the first with clone 0, after a commit if there is
// something to be committed.
func (c *cache) mapFlush(b *dm.Clone) dm.Outcome {
	b.Sector = 0
	b.SetDev(c.origin)
	if b.Num == 1 {
		b.SetDev(c.fast)
	}
	c.mu.Lock()
	changed, lost := c.changed, c.store.lost.Load()
	if changed && !lost {
		c.deferred.Push(b)
	}
	c.mu.Unlock()
	switch {
	case lost:
		b.Complete(blk.IOErr)
		return dm.Submitted
	case changed:
		c.wake()
		return dm.Submitted
	}
	return dm.Remapped
}

// mapDiscard notes which blocks have no content any more.
func (c *cache) mapDiscard(b *dm.Clone) dm.Outcome {
	c.mu.Lock()
	if !c.begun {
		return c.refuseUnlock(b)
	}
	end := b.EndSector() / c.discardSectors
	for i := (b.Sector + c.discardSectors - 1) / c.discardSectors; i < end; i++ {
		c.setDiscarded(i, true)
	}
	c.mu.Unlock()
	if !c.passdown {
		b.Complete(blk.OK)
		return dm.Submitted
	}
	b.SetDev(c.origin)
	return dm.Remapped
}

// discarded reports whether a block of the origin is. Called with mu held.
func (c *cache) discarded(block uint64) bool {
	i := block * c.blockSectors / c.discardSectors
	return c.discards[i/64]>>(i%64)&1 != 0
}

func (c *cache) setDiscarded(i uint64, on bool) {
	if on {
		c.discards[i/64] |= 1 << (i % 64)
	} else if c.discards[i/64] != 0 {
		c.discards[i/64] &^= 1 << (i % 64)
	}
}

func (c *cache) isDirty(cb uint32) bool { return c.dirty[cb/64]>>(cb%64)&1 != 0 }

// setDirty notes whether a block of the cache differs from the origin's. Called with mu
// held.
func (c *cache) setDirty(cb uint32, dirty bool) {
	if c.isDirty(cb) == dirty {
		return
	}
	c.dirty[cb/64] ^= 1 << (cb % 64)
	c.policy.SetDirty(cb, dirty)
	if dirty {
		c.dirtied++
	} else if c.dirtied--; c.dirtied == 0 {
		c.t.Event()
	}
}
