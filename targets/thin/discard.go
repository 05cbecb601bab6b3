package thin

import (
	"slices"

	"udm/blk"
	"udm/dm"
	"udm/targets/internal/prison"
)

// Discards of whole blocks. What is left of a block that is discarded in part
// keeps its content.
//
// Without passdown:
//
//	cell ─ erase cache ─ all I/O that was under way has ended ─► unmap, end
//
// With passdown the range goes in runs that are mapped to runs of data blocks;
// the bio ends with the last of them, and the cell with the bio:
//
//	run ─ all I/O has ended ─► unmap, take the blocks ─ data device ─► release them
//
// Blocks that are taken are not allocated while the data device still discards
// them; a crash forgets that. (The kernel takes a reference instead, and leaks it.)
// If others may use the blocks, only those go to the data device that nobody
// refers to. What the data device answers does not matter: the blocks are unmapped.

// processDiscard serves a deferred discard.
func (t *thin) processDiscard(c *dm.Clone) {
	begin, end := t.wholeBlocks(c)
	if begin == end || t.pool.mode().readOnly() {
		c.Complete(blk.OK)
		return
	}
	cell := t.pool.prison.Detain(prison.Key{Begin: begin, End: end, Dev: t.vol.id, Virtual: true}, c)
	switch {
	case cell == nil:
	case t.pool.settings.features.passdown:
		t.discardRuns(cell)
	default:
		m := t.newMapping(cell, 0)
		m.clone = c
		t.quiesce(m)
	}
}

// wholeBlocks are the blocks that lie in c as a whole.
func (t *thin) wholeBlocks(c *dm.Clone) (begin, end uint64) {
	begin, off := t.split(c.Sector)
	if off > 0 {
		begin++
	}
	end, _ = t.split(c.EndSector())
	return begin, max(begin, end)
}

// quiesce has m discarded when the I/O to its blocks has ended. New I/O to them
// waits in the cell.
func (t *thin) quiesce(m *mapping) {
	p := t.pool
	t.vol.cache.erase(m.begin, m.end)
	if !p.allIO.AddWork(func() { p.push(&p.inbox.quiesced, m) }) {
		p.next.idle = append(p.next.idle, m)
	}
}

// discardRuns discards the mapped runs in the cell's range.
func (t *thin) discardRuns(cell *prison.Cell) {
	c := cell.Holder
	hookOf(c).cell = cell
	for begin, end := cell.Begin, cell.End; begin < end; {
		r, err := t.vol.td.FindRange(begin, end)
		if err != nil {
			break // nothing more, or not to be found: what was found is discarded
		}
		m := &mapping{t: t, begin: r.ThinBegin, end: r.ThinEnd, data: r.DataBegin, shared: r.Shared, clone: c}
		c.Hold()
		t.quiesce(m)
		begin = r.ThinEnd
	}
	c.Complete(blk.OK)
}

// discardAll unmaps blocks whose I/O has ended and lets readers see that before
// anybody is let at them again. It passes on to the data device what nobody uses
// any more. Blocks that were shared have been left by the others in this
// transaction, perhaps: it is committed first, once for all of them, since after a
// power cut the last one would send these others to blocks that have lost their
// content. (The kernel does not; there it does.)
func (p *pool) discardAll(ms []*mapping) {
	if len(ms) == 0 {
		return
	}
	p.md.Batch(func() { ms = slices.DeleteFunc(ms, func(m *mapping) bool { return !m.unmap() }) })
	sharing := false
	for _, m := range ms {
		switch {
		case m.bad.Load():
		case m.aborts != p.transaction.aborts:
			m.bad.Store(true) // what came after it took it along
		case m.cell == nil:
			m.findUnused()
			sharing = sharing || m.shared && len(m.unused) > 0
		}
	}
	failed := sharing && p.commit() != nil
	for _, m := range ms {
		switch {
		case m.bad.Load():
			m.endDiscard(blk.IOErr)
		case m.cell == nil:
			m.passDown(failed) // the cell is released in a later pass
		default:
			m.endDiscard(blk.OK)
		}
	}
}

// unmap unmaps the blocks. It reports false when that was the end of it.
func (m *mapping) unmap() bool {
	p := m.t.pool
	switch {
	case p.mode() == modeFail:
		m.endDiscard(blk.IOErr)
		return false
	case p.mode().readOnly():
		m.endDiscard(blk.OK)
		return false
	}
	err := p.modify(m.t.vol.td.RemoveCost(m.begin, m.end), func() error {
		m.aborts = p.transaction.aborts
		p.change(m.t.vol)
		return m.t.vol.td.RemoveRange(m.begin, m.end)
	})
	if err != nil {
		m.bad.Store(true)
	}
	return true
}

// endDiscard ends the bio's part that m is.
func (m *mapping) endDiscard(st blk.Status) {
	m.clone.Complete(st)
	if m.cell != nil {
		m.t.deferCell(m.cell)
	}
}

// findUnused finds the runs of data blocks that nobody uses, as far as their
// reference counts can be read, and takes them.
func (m *mapping) findUnused() {
	m.unused = nil
	m.eachUnused(func(b, e uint64) {
		m.unused = append(m.unused, blockRun{b, e})
		m.t.pool.md.TakeData(b, e)
	})
}

func (m *mapping) eachUnused(fn func(begin, end uint64)) {
	end := m.data + m.end - m.begin
	if !m.shared {
		fn(m.data, end)
		return
	}
	for b := m.data; b < end; {
		e, free := m.sameUse(b, end)
		if e == b {
			return
		}
		if free {
			fn(b, e)
		}
		b = e
	}
}

// passDown discards the unused data blocks on the data device, or none.
func (m *mapping) passDown(none bool) {
	m.left.Store(1)
	for _, r := range m.unused {
		if !none {
			m.discardData(r.begin, r.end)
		}
	}
	m.passed(nil)
}

// sameUse finds how far from b the data blocks are all free, or all not.
func (m *mapping) sameUse(b, end uint64) (e uint64, free bool) {
	for e = b; e < end; e++ {
		refs, err := m.t.pool.md.DataRefs(e)
		if err != nil {
			return b, false
		}
		if e == b {
			free = refs == 0
		} else if free != (refs == 0) {
			break
		}
	}
	return e, free
}

// discardData sends the discard of data blocks [b, e) to the pool device, in
// pieces that it takes.
func (m *mapping) discardData(b, e uint64) {
	dev, bs := m.t.poolDev, m.t.blockSectors
	most := max(dev.Limits().MaxDiscard/bs*bs, bs)
	for s, end := b*bs, e*bs; s < end; s += most {
		m.left.Add(1)
		dev.Submit(&blk.Bio{Op: blk.Discard, Sector: s, Sectors: min(most, end-s), End: m.passed})
	}
}

// passed counts a discard that the data device has answered.
func (m *mapping) passed(*blk.Bio) {
	if m.left.Add(-1) == 0 {
		m.t.pool.push(&m.t.pool.inbox.passed, m)
	}
}

// discarded lets the blocks be allocated that the data device has discarded. A
// commit finds that there is space again.
func (m *mapping) discarded() {
	p := m.t.pool
	for _, r := range m.unused {
		p.md.ReleaseData(r.begin, r.end)
	}
	p.transaction.freed = true
	m.endDiscard(blk.OK)
}
