package thin

import (
	"slices"

	"udm/blk"
	"udm/dm"
	"udm/targets/internal/prison"
	"udm/targets/thin/thinmeta"
)

// Only whole blocks are unmapped. A block that is discarded in part keeps its
// content.
//
// Without passdown:
//
//	take cell ─ erase cache ─ wait for I/O in flight ─► unmap, complete the bio
//
// With passdown, more steps come before the bio completes:
//
//	… ─► unmap, reserve the data blocks ─ discard them on the data device ─► release them, complete the bio
//
// A pass unmaps only a portion of the blocks, so that other bios need not wait for a
// large discard; later passes continue. After a crash some portions are discarded and
// others not, which is legal for a discard that has not been answered. Passdown is
// done in portions too, but in larger ones, because each may need a commit.
//
// While the data device discards a block, the block is reserved in memory and cannot
// be allocated; a crash drops the reservation. (The kernel takes a reference instead,
// and leaks it.) Of shared blocks, only those without any reference left are passed
// down. Errors of the data device are ignored: the blocks are unmapped.

const (
	portion   = 1024 // mapped blocks that one pass unmaps
	maxUnused = 1024 // runs of unused blocks that one discard passes down at once
)

// processDiscard serves a deferred discard. EndIO releases its cell.
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

// wholeBlocks returns the blocks that lie entirely in c.
func (t *thin) wholeBlocks(c *dm.Clone) (begin, end uint64) {
	begin, off := t.split(c.Sector)
	if off > 0 {
		begin++
	}
	end, _ = t.split(c.EndSector())
	return begin, max(begin, end)
}

// quiesce queues m for unmapping once the I/O to its blocks has ended. New I/O to
// them waits in the cell.
func (t *thin) quiesce(m *mapping) {
	p := t.pool
	t.vol.cache.erase(m.begin, m.end)
	if !p.allIO.AddWork(func() { p.push(&p.inbox.quiesced, m) }) {
		p.next.idle = append(p.next.idle, m)
	}
}

// discardSome unmaps one portion of the discards whose blocks are idle, and makes the
// changes visible to readers before any cell is released. The rest is left to the
// next pass; a discard that had its turn goes to the end of the list.
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

// goOnLater queues discards for the next pass.
func (p *pool) goOnLater(ms ...*mapping) {
	if len(ms) > 0 {
		p.next.idle = append(p.next.idle, ms...)
		p.wake()
	}
}

// passDownAll passes unused blocks down to the data device and completes the discards
// that have none. If a block was shared, other volumes may have dropped it in this
// same transaction, so it is committed first, once for all discards: after a power
// cut the previous transaction would be in force, in which those volumes still use a
// block that has lost its content. (The kernel does not commit here and has this
// fault.)
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

// lost reports whether the unmapping failed or was undone by an aborted transaction.
func (m *mapping) lost() bool {
	return m.bad.Load() || m.begun && m.aborts != m.t.pool.transaction.aborts
}

// unmapSome unmaps at most the given number of the remaining mapped blocks and
// returns how many it unmapped. In a pool that cannot change its metadata it does
// nothing.
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
		m.end = next // discard the part that was found
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

// takeUnused reserves the data blocks of an unmapped run that have no reference left,
// as far as the reference counts can be read.
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

// releaseUnused makes the reserved blocks available for allocation again.
func (m *mapping) releaseUnused() {
	for _, r := range m.unused {
		m.t.pool.md.ReleaseData(r.begin, r.end)
	}
	m.unused, m.shared = m.unused[:0], false
}

// passDown discards the unused data blocks on the data device, or none of them.
func (m *mapping) passDown(none bool) {
	m.left.Store(1)
	for _, r := range m.unused {
		if !none {
			m.discardData(r.begin, r.end)
		}
	}
	m.passed(nil)
}

// sameUse returns the end of the run from b in which data blocks are either all free
// or all in use.
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

// discardData discards data blocks [b, e) through the pool device, in bios of the
// size it accepts.
func (m *mapping) discardData(b, e uint64) {
	dev, bs := m.t.poolDev, m.t.blockSectors
	most := max(dev.Limits().MaxDiscard/bs*bs, bs)
	for s, end := b*bs, e*bs; s < end; s += most {
		m.left.Add(1)
		dev.Submit(&blk.Bio{Op: blk.Discard, Sector: s, Sectors: min(most, end-s), End: m.passed})
	}
}

// passed counts a discard that the data device has completed.
func (m *mapping) passed(*blk.Bio) {
	if m.left.Add(-1) == 0 {
		m.t.pool.push(&m.t.pool.inbox.passed, m)
	}
}

// discarded is called when the data device has discarded the unused blocks. The
// commit at the end of the pass notices the free space.
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
