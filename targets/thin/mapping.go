package thin

import (
	"sync/atomic"
	"syscall"

	"udm/blk"
	"udm/dm"
	"udm/targets/internal/kcopyd"
	"udm/targets/internal/prison"
	"udm/targets/thin/thinmeta"
)

// mapping is a block that is being prepared and will be mapped, or a range of blocks
// that is being discarded (struct dm_thin_new_mapping).
//
//	new ─ copied, zeroed or overwritten, old readers gone ─► prepared ─ insert ─► mapped ─ release ─► gone
type mapping struct {
	t    *thin
	cell *prison.Cell // of the blocks; nil for a discard, whose EndIO releases it

	begin, end uint64 // virtual blocks
	data       uint64 // first data block

	// For a discard, [begin, end) is what is left to unmap.
	passdown bool       // discard the data blocks on the data device, too
	begun    bool       // a block has been unmapped
	unused   []blockRun // reserved for passdown
	shared   bool       // some of them were shared

	// clone is the bio that overwrites the block, or the discard.
	clone *dm.Clone

	left       atomic.Int32 // actions still to be done
	aborts     uint64       // pool.transaction.aborts when it was inserted or first unmapped
	bad        atomic.Bool  // an action failed
	full       atomic.Bool  // an action found no space, on any disk
	copy, tail kcopyd.Job
}

// blockRun is data blocks [begin, end).
type blockRun struct{ begin, end uint64 }

func (t *thin) newMapping(cell *prison.Cell, data uint64) *mapping {
	m := t.pool.spareMapping()
	t.pool.preparing++
	m.t, m.cell, m.begin, m.end, m.data = t, cell, cell.Begin, cell.End, data
	return m
}

// maxSpare bounds the mappings that are kept for reuse.
const maxSpare = 512

func (p *pool) spareMapping() *mapping {
	n := len(p.spare)
	if n == 0 {
		return &mapping{}
	}
	m := p.spare[n-1]
	p.spare = p.spare[:n-1]
	return m
}

// free recycles a released mapping, to which no reference is left.
func (m *mapping) free() {
	p := m.t.pool
	p.preparing--
	if len(p.spare) == maxSpare {
		return
	}
	m.t, m.cell, m.clone = nil, nil, nil
	m.bad.Store(false)
	m.full.Store(false)
	p.spare = append(p.spare, m)
}

// done counts one action. After the last one the mapping goes back to the owner.
func (m *mapping) done() {
	if m.left.Add(-1) > 0 {
		return
	}
	m.t.pool.push(&m.t.pool.inbox.prepared, m)
}

func (p *pool) push(list *[]*mapping, m *mapping) {
	p.inbox.mu.Lock()
	*list = append(*list, m)
	p.inbox.mu.Unlock()
	p.wake()
}

func (m *mapping) copied(j *kcopyd.Job) {
	switch {
	case j.NoSpace:
		m.full.Store(true)
	case j.Failed():
		m.bad.Store(true)
	}
	m.done()
}

// provision prepares a data block for an unmapped block.
func (t *thin) provision(cell *prison.Cell, data uint64) {
	m := t.newMapping(cell, data)
	m.left.Store(1)
	switch p := t.pool; {
	case t.overwrites(cell.Holder):
		m.overwrite()
	case p.settings.features.zero:
		m.zero(&m.copy, 0, t.blockSectors)
	default:
		m.fillHoles(0)
	}
}

// overwrites reports whether a write covers its block.
func (t *thin) overwrites(c *dm.Clone) bool { return c.Op == blk.Write && c.Sectors == t.blockSectors }

// zero zeroes sectors [from, to) of the new block and takes space for them.
func (m *mapping) zero(j *kcopyd.Job, from, to uint64) {
	j.SetTo(kcopyd.Place{Dev: m.t.poolCopy, Sector: m.data*m.t.blockSectors + from})
	j.Sectors, j.Done, j.NoUnmap = to-from, m.copied, true
	m.t.pool.copier.Zero(j)
}

// overwrite lets the holder, which covers the block, write it directly instead of a
// copy or zeroes. The bio completes only after the block is mapped.
func (m *mapping) overwrite() {
	c := m.cell.Holder
	m.clone = c
	c.Redirect(m.overwritten)
	m.t.enter(hookOf(c), false)
	m.t.remap(c, m.data)
	c.Issue()
}

func (m *mapping) overwritten(b *blk.Bio) {
	switch b.Status() {
	case blk.OK:
	case blk.NoSpace:
		m.full.Store(true)
	default:
		m.bad.Store(true)
	}
	m.clone.Restore()
	m.clone.Rearm()
	m.done()
}

// copyShared breaks sharing: it prepares a copy of the data block old. Reads of
// shared blocks in flight must end before the copy is mapped, because afterwards
// nothing keeps old from being freed.
func (t *thin) copyShared(cell *prison.Cell, old, data uint64) {
	t.vol.cache.erase(cell.Begin, cell.End)
	m := t.newMapping(cell, data)
	t.copyBlock(m, kcopyd.Place{Dev: t.poolCopy, Sector: old * t.blockSectors}, t.blockSectors)
}

// copyOrigin prepares a copy of the part of the block within the external origin.
func (t *thin) copyOrigin(cell *prison.Cell, data uint64) {
	begin, size := cell.Begin*t.blockSectors, t.originSize.Load()
	if begin >= size {
		t.provision(cell, data)
		return
	}
	t.copyBlock(t.newMapping(cell, data), kcopyd.Place{Dev: t.originCopy, Sector: begin}, min(t.blockSectors, size-begin))
}

// copyBlock copies the first n sectors of m's data block from the given place. It zeroes
// the rest, or only takes its space if the pool does not zero new blocks.
func (t *thin) copyBlock(m *mapping, from kcopyd.Place, n uint64) {
	m.left.Store(3) // quiesce, copy, this function
	if !t.pool.sharedIO.AddWork(m.done) {
		m.done()
	}
	if t.overwrites(m.cell.Holder) {
		m.overwrite()
	} else {
		m.copy.From = from
		m.copy.SetTo(kcopyd.Place{Dev: t.poolCopy, Sector: m.data * t.blockSectors})
		m.copy.Sectors, m.copy.Done = n, m.copied
		t.pool.copier.Copy(&m.copy)
		if n < t.blockSectors {
			m.left.Add(1)
			m.prepareTail(n)
		}
	}
	m.done()
}

// prepareTail zeroes the new block from a sector on, or only takes its space there if the
// pool does not zero new blocks.
func (m *mapping) prepareTail(from uint64) {
	if m.t.pool.settings.features.zero {
		m.zero(&m.tail, from, m.t.blockSectors)
		return
	}
	m.fillHoles(from)
}

// insertAll maps prepared blocks, makes the mappings visible to readers of the
// metadata, and then issues the bios in their cells.
func (p *pool) insertAll(ms []*mapping) {
	if len(ms) == 0 {
		return
	}
	p.md.Batch(func() { each(ms, (*mapping).insert) })
	each(ms, (*mapping).release)
	each(ms, (*mapping).free)
}

func (m *mapping) insert() {
	err := error(syscall.EIO)
	switch p := m.t.pool; {
	case m.bad.Load() || p.mode() >= modeOutOfMetadata:
	case m.full.Load():
		p.dataFull()
		err = blk.NoSpace
	default:
		p.short.took = true
		err = m.enter()
	}
	if err != nil {
		m.full.Store(err == blk.NoSpace)
		m.bad.Store(err != blk.NoSpace)
		m.t.pool.md.ReleaseData(m.data, m.data+1) // the kernel leaks it
	}
}

// enter inserts the mapping into the metadata.
func (m *mapping) enter() error {
	t, p := m.t, m.t.pool
	return p.modify(t.vol.td.InsertCost(m.begin), func() error {
		m.aborts = p.transaction.aborts
		p.change(t.vol)
		return t.vol.td.Insert(m.begin, m.data)
	})
}

// release issues the bios that waited for a mapping, or fails them if the mapping
// could not be made or was lost. A bio that overwrote the block completes.
func (m *mapping) release() {
	t, p := m.t, m.t.pool
	switch {
	case m.full.Load():
		m.refuse()
		return
	case m.bad.Load() || m.aborts != p.transaction.aborts:
		p.prison.Error(m.cell, p.errorStatus())
		return
	}
	t.vol.cache.fill(t.vol.cache.table.Load(), m.begin, thinmeta.Mapping{Block: m.data})
	if m.clone == nil {
		c := m.cell.Holder
		t.enter(hookOf(c), false)
		t.remapAndIssue(c, m.data)
	}
	t.issueCell(m.cell, m.data, false)
	if m.clone != nil {
		t.endOverwrite(m.clone)
	}
}

// endOverwrite completes a bio that overwrote its block: after a commit if it is FUA.
func (t *thin) endOverwrite(c *dm.Clone) {
	switch {
	case !t.needsCommit(c):
		c.Complete(blk.OK)
	case t.vol.td.AbortedChanges():
		c.Complete(blk.IOErr)
	default:
		t.pool.transaction.completed.Push(c)
	}
}
