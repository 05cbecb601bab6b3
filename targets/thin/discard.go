package thin

import (
	"slices"

	"udm/blk"
	"udm/dm"
	"udm/targets/internal/prison"
	"udm/targets/thin/thinmeta"
)

// Discards of whole blocks. What is left of a block that is discarded in part
// keeps its content.
//
// Without passdown:
//
//	cell ─ erase cache ─ all I/O that was under way has ended ─► unmap, end
//
// With passdown there is more to do before the end:
//
//	… ─► unmap, take the data blocks ─ data device ─► release them, end
//
// A pass unmaps a portion of blocks only, so that other bios do not wait for a
// large discard; the next passes go on with it. Each portion is whole by itself: a
// crash leaves a discard that is done in part, as one that was not answered may be.
// What is passed down comes in portions, too, larger ones, as each may take a commit.
//
// Blocks that are taken are not allocated while the data device still discards
// them; a crash forgets that. (The kernel takes a reference instead, and leaks it.)
// If others may use the blocks, only those go to the data device that nobody
// refers to. What the data device answers does not matter: the blocks are unmapped.

const (
	portion   = 1024 // mapped blocks that a pass unmaps at once
	maxUnused = 1024 // runs of blocks of a discard that are passed down at once
)

// processDiscard serves a deferred discard. Its end releases the cell.
func (t *thin) processDiscard(c *dm.Clone) {
	begin, end := t.wholeBlocks(c)
	if begin == end || t.pool.mode().readOnly() {
		c.Complete(blk.OK)
		return
	}
	cell := t.pool.prison.Detain(prison.Key{Begin: begin, End: end, Dev: t.vol.id, Virtual: true}, c)
	if cell == nil {
		return
	}
	hookOf(c).cell = cell
	t.quiesce(&mapping{t: t, begin: begin, end: end, clone: c, passdown: t.pool.settings.features.passdown})
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

// discardSome goes on with discards whose blocks are idle, as far as one portion
// goes, and lets readers see what is unmapped before anybody is let at it again. What
// is left is for the next pass, the discard that has had its turn last.
func (p *pool) discardSome(ms []*mapping) {
	if len(ms) == 0 {
		return
	}
	var ready, again []*mapping
	p.md.Batch(func() {
		for left := uint64(portion); left > 0 && len(ms) > 0; ms = ms[1:] {
			m := ms[0]
			left -= max(1, m.unmapSome(left))
			if m.begin < m.end && len(m.unused) < maxUnused {
				again = append(again, m)
			} else {
				ready = append(ready, m)
			}
		}
	})
	p.goOnLater(append(ms, again...)...)
	p.passDownAll(ready)
}

// goOnLater leaves discards to the next pass.
func (p *pool) goOnLater(ms ...*mapping) {
	if len(ms) > 0 {
		p.next.idle = append(p.next.idle, ms...)
		p.wake()
	}
}

// passDownAll passes on to the data device what nobody uses any more, and ends
// discards that have nothing of that. Blocks that were shared have been left by the
// others in this transaction, perhaps: it is committed first, once for all of them,
// since after a power cut the last one would send these others to blocks that have
// lost their content. (The kernel does not; there it does.)
func (p *pool) passDownAll(ms []*mapping) {
	sharing := slices.ContainsFunc(ms, func(m *mapping) bool { return m.shared && !m.lost() })
	failed := sharing && p.commit() != nil
	for _, m := range ms {
		switch {
		case m.lost():
			m.releaseUnused()
			m.clone.Complete(blk.IOErr)
		case m.passdown:
			m.passDown(failed)
		default:
			m.clone.Complete(blk.OK)
		}
	}
}

// lost reports whether blocks that were unmapped are mapped again, by a transaction
// that was thrown away, or could not be unmapped.
func (m *mapping) lost() bool {
	return m.bad.Load() || m.begun && m.aborts != m.t.pool.transaction.aborts
}

// unmapSome unmaps the first of the blocks that are left, most mapped ones at
// most, and tells how many. A pool that cannot change its metadata leaves them as
// they are.
func (m *mapping) unmapSome(most uint64) (blocks uint64) {
	p, td := m.t.pool, m.t.vol.td
	if p.mode() >= modeOutOfMetadata || p.short.meta || m.lost() {
		m.stop(p.mode() == modeFail)
		return 0
	}
	rs, next, err := td.FindRanges(p.ranges[:0], m.begin, m.end, most)
	p.ranges = rs
	switch {
	case err != nil && !m.passdown:
		p.metadataFailed(err)
		m.stop(true)
		return 0
	case err != nil:
		m.end = next // what was found is discarded
	}
	for _, r := range rs {
		blocks += r.ThinEnd - r.ThinBegin
	}
	if blocks > 0 {
		if err := m.unmap(rs[0].ThinBegin, rs[len(rs)-1].ThinEnd, blocks); err != nil {
			m.stop(err != blk.NoSpace)
			return blocks
		}
	}
	for i := range rs {
		m.takeUnused(&rs[i])
	}
	m.begin = next
	return blocks
}

// stop ends the unmapping.
func (m *mapping) stop(bad bool) {
	m.begin = m.end
	if bad {
		m.bad.Store(true)
	}
}

func (m *mapping) unmap(begin, end, blocks uint64) error {
	p, v := m.t.pool, m.t.vol
	return p.modify(v.td.RemoveCost(begin, end, blocks), func() error {
		if !m.begun {
			m.begun, m.aborts = true, p.transaction.aborts
		}
		p.change(v)
		return v.td.RemoveRange(begin, end)
	})
}

// takeUnused takes the data blocks of an unmapped run that nobody uses, as far as
// their reference counts can be read.
func (m *mapping) takeUnused(r *thinmeta.Range) {
	if !m.passdown {
		return
	}
	begin, end := r.DataBegin, r.DataBegin+r.ThinEnd-r.ThinBegin
	if !r.Shared {
		m.take(begin, end)
		return
	}
	for b := begin; b < end; {
		e, free := m.sameUse(b, end)
		if e == b {
			return
		}
		if free {
			m.shared = true
			m.take(b, e)
		}
		b = e
	}
}

func (m *mapping) take(begin, end uint64) {
	m.t.pool.md.TakeData(begin, end)
	if n := len(m.unused); n > 0 && m.unused[n-1].end == begin {
		m.unused[n-1].end = end
		return
	}
	m.unused = append(m.unused, blockRun{begin, end})
}

// releaseUnused lets the blocks be allocated that were taken.
func (m *mapping) releaseUnused() {
	for _, r := range m.unused {
		m.t.pool.md.ReleaseData(r.begin, r.end)
	}
	m.unused, m.shared = m.unused[:0], false
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

// discarded is called when the data device has discarded what is unused. A commit
// finds that there is space again.
func (m *mapping) discarded() {
	p := m.t.pool
	m.releaseUnused()
	p.transaction.freed = true
	if m.begin < m.end {
		p.goOnLater(m)
		return
	}
	m.clone.Complete(blk.OK)
}
