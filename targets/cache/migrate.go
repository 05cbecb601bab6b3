package cache

import (
	"udm/blk"
	"udm/dm"
	"udm/targets/cache/internal/smq"
	"udm/targets/internal/deferredset"
	"udm/targets/internal/kcopyd"
)

// migration is a change of what the cache holds of one block of the origin (struct
// dm_cache_migration). From lock to finish the block is locked.
type migration struct {
	work       smq.Work
	invalidate bool         // not the policy's work: the block leaves the cache
	background bool         // counted in copying
	bio        *dm.Clone    // what began it, if that was a bio
	all        bool         // guarded by cache.mu; reads wait, too, not only writes
	waiting    dm.CloneList // guarded by cache.mu

	step func() // what the owner does next with it
	job  kcopyd.Job
	st   blk.Status // of the copy, or of the bio in its place
}

// lock locks the block of m. Called with mu held.
func (c *cache) lock(m *migration) *migration {
	c.locks[m.work.OBlock] = m
	c.migrating++
	return m
}

// then has the owner do a step of m.
func (c *cache) then(m *migration, step func()) {
	m.step = step
	c.mu.Lock()
	c.ready = append(c.ready, m)
	c.mu.Unlock()
	c.wake()
}

// quiesce waits for the bios of a set in flight; those that come later wait for m.
func (c *cache) quiesce(m *migration, set *deferredset.Set, step func()) {
	if !set.AddWork(func() { c.then(m, step) }) {
		c.then(m, step)
	}
}

func (c *cache) quiesceAll(m *migration, step func()) {
	c.quiesce(m, c.writes, func() { c.quiesce(m, c.reads, step) })
}

// start begins a work of the policy in the background.
func (c *cache) start(w smq.Work) {
	m := &migration{work: w, background: true}
	c.mu.Lock()
	if c.locks[w.OBlock] != nil || c.readOnly && w.Op != smq.Writeback {
		c.policy.Complete(w, false)
		c.mu.Unlock()
		return
	}
	c.lock(m)
	c.copying++
	c.mu.Unlock()
	c.quiesce(m, c.writes, func() { c.copy(m) })
}

// copy copies the block, if that is necessary.
func (c *cache) copy(m *migration) {
	w := m.work
	o := kcopyd.Place{Dev: c.originCopy, Sector: w.OBlock * c.blockSectors}
	f := kcopyd.Place{Dev: c.fastCopy, Sector: uint64(w.CBlock) * c.blockSectors}
	from, to := o, f
	if w.Op != smq.Promote {
		from, to = f, o
		c.mu.Lock()
		needless := !c.isDirty(w.CBlock) || c.discarded(w.OBlock)
		c.mu.Unlock()
		if needless {
			c.copied(m)
			return
		}
	}
	m.job.From, m.job.Sectors = from, c.blockSectors
	m.job.SetTo(to)
	m.job.Done = func(j *kcopyd.Job) {
		if j.Failed() {
			m.st = blk.IOErr
		}
		c.then(m, func() {
			c.noteCopy(w.Op)
			c.copied(m)
		})
	}
	c.copier.Copy(&m.job)
}

// noteCopy has the next commit flush the device that a block was copied to. It is called
// after the copy: a commit in the middle of it flushes a part.
func (c *cache) noteCopy(op smq.Op) {
	if op == smq.Promote {
		c.flushFast = true
	} else {
		c.flushOrig = true
	}
}

// copied is the step after the copy.
func (c *cache) copied(m *migration) {
	switch {
	case m.st != blk.OK:
		c.finish(m, false)
	case m.work.Op == smq.Writeback:
		c.finish(m, true)
	default:
		c.mu.Lock()
		m.all = true
		c.mu.Unlock()
		c.quiesce(m, c.reads, func() { c.update(m) })
	}
}

// update changes the metadata.
func (c *cache) update(m *migration) {
	if m.work.Op == smq.Promote {
		c.finish(m, c.insert(m))
		return
	}
	if !c.changeMetadata(func() error { return c.store.md.Remove(m.work.CBlock) }) {
		c.finish(m, false)
		return
	}
	c.committing = append(c.committing, m)
}

func (c *cache) insert(m *migration) bool {
	return c.changeMetadata(func() error { return c.store.md.Insert(m.work.CBlock, m.work.OBlock) })
}

// takeBio promotes the block of a write: the write takes the place of the copy if it
// covers the block.
func (m *migration) takeBio() {
	c := hookOf(m.bio).cache
	if m.bio.Sectors != c.blockSectors {
		m.copyFirst(c)
		return
	}
	b := m.bio
	b.Redirect(func(b *blk.Bio) {
		m.st = b.Status()
		c.then(m, func() { c.overwritten(m) })
	})
	c.mu.Lock()
	c.setDiscarded(m.work.OBlock*c.blockSectors/c.discardSectors, false)
	c.launch(b)
	c.mu.Unlock()
	b.SetDev(c.fast)
	b.Sector = uint64(m.work.CBlock) * c.blockSectors
	b.Issue()
}

// copyFirst copies the block, which the bio then hits, or misses if that failed.
func (m *migration) copyFirst(c *cache) {
	h := hookOf(m.bio)
	h.counted, h.tried = true, true
	c.mu.Lock()
	m.waiting.PushHead(m.bio)
	m.bio = nil
	c.mu.Unlock()
	c.copy(m)
}

// overwritten ends the write that has taken the place of the copy.
func (c *cache) overwritten(m *migration) {
	b := m.bio
	b.Restore()
	b.Rearm()
	c.noteCopy(smq.Promote)
	if m.st == blk.OK && !c.insert(m) {
		if m.st = blk.IOErr; !c.isReadOnly() {
			m.st = blk.NoSpace
		}
	}
	c.finish(m, m.st == blk.OK)
	if m.st == blk.OK && b.Flags&blk.FUA != 0 {
		c.answers.Push(b)
		return
	}
	b.Complete(m.st)
}

// invalidateUnlock takes a block out of the cache before it is written in passthrough
// mode. Called with mu held.
func (c *cache) invalidateUnlock(b *dm.Clone, block uint64, cb uint32) dm.Outcome {
	if b.Flags&blk.NoWait != 0 || c.readOnly {
		st := blk.IOErr
		if !c.readOnly {
			st = blk.WouldBlock
		}
		c.mu.Unlock()
		b.Complete(st)
		return dm.Submitted
	}
	m := c.lock(&migration{work: smq.Work{Op: smq.Demote, OBlock: block, CBlock: cb}, invalidate: true, bio: b, all: true})
	c.mu.Unlock()
	c.demotions.Add(1)
	c.quiesceAll(m, func() { c.update(m) })
	return dm.Submitted
}

// finish unlocks the block, and maps the bios that waited.
func (c *cache) finish(m *migration, success bool) {
	c.mu.Lock()
	c.settle(m, success)
	delete(c.locks, m.work.OBlock)
	bios := m.waiting.Take()
	c.migrating--
	if m.background {
		c.copying--
	}
	c.mu.Unlock()
	if !success && !m.invalidate {
		c.pauseUntil = c.env.Now() + commitPeriod
	}
	if m.invalidate {
		c.goOn(m.bio, success)
	}
	for b := bios.Pop(); b != nil; b = bios.Pop() {
		if c.mapBlock(b) == dm.Remapped {
			b.Issue()
		}
	}
	c.quiet.Wake()
}

// goOn writes to the origin when the block has left the cache.
func (c *cache) goOn(b *dm.Clone, success bool) {
	if !success {
		b.Complete(blk.IOErr)
		return
	}
	block, _ := c.split(b.Sector)
	c.mu.Lock()
	c.enter(b, block)
	c.mu.Unlock()
	b.SetDev(c.origin)
	b.Issue()
}

// settle tells the policy how m has ended. Called with mu held.
func (c *cache) settle(m *migration, success bool) {
	w := m.work
	if m.invalidate {
		if success {
			c.policy.Invalidate(w.CBlock)
		}
		return
	}
	if success && w.Op != smq.Promote {
		c.setDirty(w.CBlock, false)
	}
	c.policy.Complete(w, success)
	switch {
	case !success:
	case w.Op == smq.Promote:
		c.promotions.Add(1)
		c.setDirty(w.CBlock, m.bio != nil)
	case w.Op == smq.Demote:
		c.demotions.Add(1)
	}
}
