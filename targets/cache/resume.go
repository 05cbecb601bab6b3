package cache

import (
	"fmt"
	"syscall"

	"udm/blk"
	"udm/dm"
	"udm/pdata"
	"udm/targets/cache/cachemeta"
)

// Preresume loads what the metadata says, and adapts it to the size of the cache device.
func (c *cache) Preresume() (err error) {
	c.store.call(func() { err = c.prepare() })
	return err
}

func (c *cache) prepare() error {
	md := c.store.md
	c.store.bind(c)
	if md.Failed() || md.NeedsCheck() {
		c.setReadOnly()
	}
	if n := c.blocksNow(); !c.loaded || n != c.blocks && !c.isReadOnly() {
		if err := c.resize(n); err != nil {
			return err
		}
		c.loaded = false
		if err := c.load(); err != nil {
			return dm.Because(dm.Errorf(pdata.ErrnoOf(err), "%v", err), "the mappings of the cache cannot be loaded")
		}
		if c.mode == Passthrough {
			if err := c.store.mayPassThrough(); err != nil {
				return err
			}
		}
		c.loaded = true
	}
	c.begin()
	return nil
}

// begin takes the clean-shutdown flag back. Until that is durable nothing can be written.
func (c *cache) begin() {
	if c.isReadOnly() {
		return
	}
	err := c.store.md.Begin()
	switch {
	case err == nil:
		c.mu.Lock()
		c.begun = true
		c.mu.Unlock()
	case pdata.ErrnoOf(err) != syscall.ENOSPC:
		c.metadataFailed(err)
	}
}

// resize gives the metadata the size of the cache device. If it cannot be written the
// cache goes on with the old size, read-only.
func (c *cache) resize(n uint32) error {
	md := c.store.md
	if c.isReadOnly() {
		return nil
	}
	err := md.Resize(n)
	switch {
	case err == nil:
		err = c.store.md.Commit()
	case pdata.ErrnoOf(err) == syscall.EINVAL:
		return dm.Because(dm.Errorf(syscall.EINVAL, "%v", err), "unable to shrink the cache; clean it first with the policy cleaner")
	}
	if pdata.ErrnoOf(err) == syscall.ENOSPC {
		return dm.Because(dm.Errorf(syscall.ENOSPC, "make space for the metadata device"), "the metadata of the cache cannot be resized")
	}
	if err != nil {
		c.metadataFailed(err)
	}
	return nil
}

// load fills the policy from the metadata. Mappings beyond the end of a table that is
// shorter than the last one are removed.
func (c *cache) load() error {
	md := c.store.md
	var blocks, beyond []cachemeta.Block
	seen := map[uint64]bool{}
	err := md.Load(c.identity(), func(b cachemeta.Block) error {
		switch {
		case seen[b.OBlock]:
			return fmt.Errorf("block %d of the cache is mapped to block %d, which is mapped twice: %w", b.CBlock, b.OBlock, syscall.EINVAL)
		case b.OBlock < c.originBlocks:
			blocks = append(blocks, b)
		case b.Dirty:
			return fmt.Errorf("block %d of the cache is dirty and beyond the end of the table; load one as long as before and clean the cache first with the policy cleaner: %w", b.CBlock, syscall.EFBIG)
		default:
			beyond = append(beyond, b)
		}
		seen[b.OBlock] = true
		return nil
	})
	if err == nil {
		err = c.removeAll(beyond)
	}
	if err != nil {
		return err
	}
	discards := make([]uint64, len(c.discards))
	err = md.LoadDiscards(func(begin, end uint64) {
		last := min(end/c.discardSectors, c.discardBlocks())
		for i := (begin + c.discardSectors - 1) / c.discardSectors; i < last; i++ {
			discards[i/64] |= 1 << (i % 64)
		}
	})
	if err == nil {
		c.setLoaded(md.CacheBlocks(), blocks, discards)
	}
	return err
}

// removeAll removes blocks from the metadata for good, unless these cannot be changed: once
// the table is in use, others may write where the blocks were.
func (c *cache) removeAll(blocks []cachemeta.Block) error {
	for _, b := range blocks {
		if !c.changeMetadata(func() error { return c.store.md.Remove(b.CBlock) }) && !c.isReadOnly() {
			return blk.NoSpace
		}
	}
	if c.isReadOnly() || c.commit() == nil || c.isReadOnly() {
		return nil
	}
	return blk.NoSpace
}

func (c *cache) setLoaded(size uint32, blocks []cachemeta.Block, discards []uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.blocks, c.discards = size, discards
	c.policy = c.newPolicy()
	c.dirty, c.dirtied = make([]uint64, (size+63)/64), 0
	for _, b := range blocks {
		c.policy.Load(b.OBlock, b.CBlock, b.Dirty, b.Hint, b.HasHint)
		if b.Dirty {
			c.dirty[b.CBlock/64] |= 1 << (b.CBlock % 64)
			c.dirtied++
		}
	}
}

// Resume lets migrations begin.
func (c *cache) Resume() {
	c.mu.Lock()
	c.stopped = false
	c.mu.Unlock()
	c.store.queue.Queue(c.waker)
}

// Postsuspend waits for migrations and writes what is to be remembered. Migrations that can
// go on only when there is space for a commit are left: no block is used again before that,
// after a resume or by another table, because both begin with a commit.
func (c *cache) Postsuspend() {
	c.mu.Lock()
	c.stopped = true
	c.mu.Unlock()
	c.quiet.Until(func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.migrating == c.unsaved
	})
	c.store.queue.Cancel(c.waker)
	c.store.call(c.shutDown)
}

// shutDown writes dirty bits, hints and discards. Both devices are flushed before: what
// counts as clean afterwards must be the same on both, also after a power cut.
func (c *cache) shutDown() {
	if c.isReadOnly() || !c.loaded {
		return
	}
	c.flushFast, c.flushOrig = true, true
	c.mu.Lock()
	c.begun = false
	c.mu.Unlock()
	err := c.store.md.Shutdown(c.remembered())
	switch {
	case err == nil:
		c.mu.Lock()
		c.changed = false
		c.mu.Unlock()
		c.committed(true)
	case pdata.ErrnoOf(err) == syscall.ENOSPC:
		c.t.Log().Error("the metadata of the cache cannot be written for want of space", "reason", err)
	default:
		c.metadataFailed(err)
		c.committed(false)
	}
}

// remembered is what is to be found again after a suspend. No bio and no migration is
// under way.
func (c *cache) remembered() cachemeta.Shutdown {
	c.mu.Lock()
	defer c.mu.Unlock()
	return cachemeta.Shutdown{
		Dirty: c.isDirty, Policy: c.identity(), Hint: c.policy.Hint,
		DiscardBlockSize: c.discardSectors, DiscardBlocks: c.discardBlocks(),
		Discarded: func(i uint64) bool { return c.discards[i/64]>>(i%64)&1 != 0 },
		Stats:     c.stats,
	}
}

// Status commits first, if it may, so that the figures are those of a commit.
func (c *cache) Status(kind dm.StatusKind, flags dm.StatusFlags) string {
	if kind == dm.TableText {
		l := *c.line
		l.Metadata, l.Cache, l.Origin = c.meta.Name(), c.fast.Name(), c.origin.Name()
		return l.String()
	}
	var s *Status
	c.store.call(func() {
		if flags&dm.StatusNoflush == 0 && !c.t.Device().Suspended() {
			_ = c.commit()
		}
		s = c.info()
	})
	return s.String()
}

func (c *cache) info() *Status {
	md := c.store.md
	if md.Failed() {
		return &Status{State: Fail}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.stats
	return &Status{
		UsedMetadata: md.Total() - md.Free(), TotalMetadata: md.Total(), BlockSectors: c.blockSectors,
		Resident: uint64(c.policy.Resident()), Blocks: uint64(c.blocks),
		ReadHits: uint64(n.ReadHits), ReadMisses: uint64(n.ReadMisses), WriteHits: uint64(n.WriteHits), WriteMisses: uint64(n.WriteMisses),
		Demotions: uint64(c.demotions.Load()), Promotions: uint64(c.promotions.Load()), Dirty: uint64(c.dirtied),
		Metadata2: c.line.Metadata2(), Mode: c.mode, NoPassdown: !c.passdown,
		MigrationThreshold: uint64(c.threshold.Load()), Policy: c.policyName, PolicyArgs: c.policyArgs(),
		ReadOnly: c.readOnly, NeedsCheck: md.NeedsCheck(),
	}
}
