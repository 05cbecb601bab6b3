package thin

import (
	"cmp"
	"slices"
	"syscall"

	"udm/blk"
	"udm/dm"
	"udm/targets/internal/prison"
)

// pass is the owner's work: it serves everything that became ready since the last
// pass.
func (p *pool) pass() {
	if p.writing.done.Load() {
		p.finishCommit()
	}
	p.insertAll(p.takeMappings(&p.inbox.prepared))
	p.discardSome(p.takeMappings(&p.inbox.quiesced))
	each(p.takeMappings(&p.inbox.passed), (*mapping).discarded)
	p.md.Batch(func() {
		for _, t := range p.takeReady() {
			t.processCells()
			t.processBios()
		}
	})
	idle := p.next.idle
	p.next.idle = nil
	p.discardSome(idle)
	if p.next.missed {
		p.next.missed = false
		p.md.Show()
	}
	p.deleteSome()
	p.commitIfNeeded()
}

func each(ms []*mapping, fn func(*mapping)) {
	for _, m := range ms {
		fn(m)
	}
}

func (p *pool) takeMappings(list *[]*mapping) []*mapping {
	p.inbox.mu.Lock()
	defer p.inbox.mu.Unlock()
	ms := *list
	*list = nil
	return ms
}

func (p *pool) takeReady() []*thin {
	p.inbox.mu.Lock()
	ts := p.inbox.ready
	p.inbox.ready = nil
	p.inbox.mu.Unlock()
	for _, t := range ts {
		t.ready.Store(false) // cleared before its lists are taken
	}
	return ts
}

// processCells serves the cells that Map deferred, in order of sectors.
func (t *thin) processCells() {
	t.mu.Lock()
	cells := t.cells
	t.cells = nil
	t.mu.Unlock()
	slices.SortStableFunc(cells, func(a, b *prison.Cell) int { return cmp.Compare(a.Holder.Sector, b.Holder.Sector) })
	for _, cell := range cells {
		t.processCell(cell)
	}
}

// processBios serves the deferred bios in order of sectors.
func (t *thin) processBios() {
	t.mu.Lock()
	l := t.bios.Take()
	t.mu.Unlock()
	if t.requeue.Load() {
		requeueAll(l)
		return
	}
	cs := t.pool.scratch[:0]
	for c := l.Pop(); c != nil; c = l.Pop() {
		cs = append(cs, c)
	}
	slices.SortStableFunc(cs, func(a, b *dm.Clone) int { return cmp.Compare(a.Sector, b.Sector) })
	for _, c := range cs {
		t.process(c)
	}
	clear(cs)
	t.pool.scratch = cs
}

func (t *thin) process(c *dm.Clone) {
	h := hookOf(c)
	refused := h.refused
	h.refused = false
	switch {
	case t.pool.mode() == modeFail:
		c.Complete(blk.IOErr)
	case refused:
		t.pool.dataFull()
		t.refuse(c)
	case c.Op == blk.Discard:
		t.processDiscard(c)
	case c.Op == blk.Flush:
		t.sendFlush(c)
		t.issue(c)
	default:
		block, _ := t.split(c.Sector)
		if cell := t.detain(block, c); cell != nil {
			t.processCell(cell)
		}
	}
}

// processCell serves the holder of a block's cell as the metadata requires.
func (t *thin) processCell(cell *prison.Cell) {
	switch {
	case t.requeue.Load():
		t.requeueCell(cell)
		return
	case t.pool.mode() == modeFail:
		t.pool.prison.Error(cell, t.pool.errorStatus())
		return
	}
	c, block := cell.Holder, cell.Begin
	t.pool.next.missed = t.pool.next.missed || c.Op == blk.Read
	m, err := t.vol.td.Find(block)
	switch {
	case err == nil && !(m.Shared && c.Op == blk.Write):
		t.vol.cache.fill(t.vol.cache.table.Load(), block, m)
		t.enter(hookOf(c), m.Shared)
		t.remapAndIssue(c, m.Block)
		t.issueCell(cell, m.Block, m.Shared)
	case err == syscall.ENODATA && c.Op == blk.Read:
		t.enter(hookOf(c), false)
		t.deferCell(cell)
		if t.readUnmapped(c) {
			t.issue(c)
		} else {
			c.Complete(blk.OK)
		}
	case err == nil, err == syscall.ENODATA:
		t.processWrite(cell, m.Block, err == nil)
	default:
		t.deferCell(cell)
		c.Complete(blk.IOErr)
	}
}

// processWrite serves a write that needs a new data block: its block is unmapped, or
// mapped to the shared data block old.
func (t *thin) processWrite(cell *prison.Cell, old uint64, shared bool) {
	p := t.pool
	if !p.mayAllocate() {
		t.refuse(cell.Holder)
		t.deferCell(cell)
		return
	}
	block, err := p.allocate()
	switch {
	case err == errNoData, err == blk.NoSpace:
		t.refuse(cell.Holder)
		t.deferCell(cell)
	case err != nil:
		p.prison.Error(cell, p.errorStatus())
	case shared:
		t.copyShared(cell, old, block)
	case t.origin != nil:
		t.copyOrigin(cell, block)
	default:
		t.provision(cell, block)
	}
}

// refuse fails a bio that the pool cannot serve now, or lets it wait for space.
func (t *thin) refuse(c *dm.Clone) {
	st := t.pool.refusal()
	switch {
	case t.requeue.Load():
		requeue(c)
		return
	case st != blk.OK:
		c.Complete(st)
		return
	}
	t.mu.Lock()
	t.retries.Push(c)
	t.mu.Unlock()
}

// issueCell releases a cell whose block is mapped to data and issues its inmates. It
// defers those that the owner must see first: flushes, FUA writes, discards, and
// writes if the block is shared. Inmates enter the deferred sets within the critical
// section of the release, so that a discard that follows waits for them, though they
// are issued later.
func (t *thin) issueCell(cell *prison.Cell, data uint64, shared bool) {
	var deferred, issued dm.CloneList
	t.pool.prison.VisitRelease(cell, func(cell *prison.Cell) {
		l := cell.Inmates()
		for c := l.Pop(); c != nil; c = l.Pop() {
			if c.Op > blk.Write || c.Flags&blk.FUA != 0 || shared && c.Op == blk.Write {
				deferred.Push(c)
				continue
			}
			t.enter(hookOf(c), shared)
			issued.Push(c)
		}
		if hook := t.pool.tests.afterVisit; hook != nil {
			hook()
		}
	})
	if hook := t.pool.tests.afterRelease; hook != nil {
		hook()
	}
	t.deferBios(deferred)
	for c := issued.Pop(); c != nil; c = issued.Pop() {
		t.remapAndIssue(c, data)
	}
}

func (t *thin) remapAndIssue(c *dm.Clone, data uint64) {
	t.remap(c, data)
	t.issue(c)
}

// needsCommit reports whether c may complete only after a commit.
func (t *thin) needsCommit(c *dm.Clone) bool {
	return (c.Op == blk.Flush || c.Flags&blk.FUA != 0) && t.vol.td.Changed()
}

// issue submits c, after a commit if it needs one. It fails c if the changes to be
// committed were lost by an abort.
func (t *thin) issue(c *dm.Clone) {
	switch {
	case !t.needsCommit(c):
		c.Issue()
	case t.vol.td.AbortedChanges():
		c.Complete(blk.IOErr)
	default:
		t.pool.transaction.flushes.Push(c)
	}
}
