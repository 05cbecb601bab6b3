package thin

import (
	"udm/blk"
	"udm/dm"
)

// The disks below a pool may lie on full file systems. (In the kernel writes then fail,
// and a failed commit makes the pool read-only with needs_check.) Such a write can be
// repeated, so the pool enters the mode out of data space, whichever disk is full: writes
// that need space wait or fail, everything else continues, and the pool retries every
// second.
//
//	data device      a block gets its space before it is mapped: it is zeroed without
//	                 a hole, copied or overwritten; where zeroing is skipped, its holes
//	                 are filled. If that finds no space, the block is freed and the
//	                 write waits; so do writes to mapped blocks
//	metadata device  a commit is kept until it can be written ([pdata.Super]). Until
//	                 then metadata does not change: flushes and FUA writes that need a
//	                 commit wait, too, and a discard does nothing
//
// Each tick retries everything that waits. The metadata device has space again when the
// commit succeeds; the data device when no write was refused since the last tick and the
// retried writes have ended, or a block was prepared. If nothing waits, one write at a
// time is let through as a probe, and it must prepare a block.

// shortage is the known state of full disks below a pool. Only the owner uses it.
type shortage struct {
	data, meta bool
	refused    bool // the data device had no space since the last try
	took       bool // it had some
}

func (s *shortage) any() bool { return s.data || s.meta }

// dataFull is called when a write to the data device finds no space.
func (p *pool) dataFull() {
	if !p.short.data {
		p.log().Warn("no space on the disk below the data device; free some")
	}
	p.short.data, p.short.refused = true, true
	p.outOfSpace()
}

// metadataFull is called when a commit finds no space, which may also happen below the
// data device, since the commit flushes it.
func (p *pool) metadataFull() {
	if !p.short.meta {
		p.log().Warn("no space on the disks below to commit the metadata; free some")
	}
	p.short.meta = true
	p.outOfSpace()
}

func (p *pool) outOfSpace() {
	if p.mode() == modeWrite {
		p.setMode(modeOutOfData)
	}
}

// mayAllocate reports whether a write that needs a block may try to get one.
func (p *pool) mayAllocate() bool {
	switch {
	case p.short.meta:
		return false
	case p.mode() == modeOutOfData:
		return p.short.data && !p.short.refused
	}
	return p.mode() == modeWrite
}

// tryAgain checks whether there is space again.
func (p *pool) tryAgain() {
	s := &p.short
	if !s.any() {
		return
	}
	unknown := p.preparing > 0 || p.settings.features.errorIfNoSpace
	s.data = s.data && (s.refused || !s.took && unknown)
	s.refused, s.took = false, false
	if s.meta {
		_ = p.tryCommit()
	}
	p.spaceFound()
	if s.data && !s.meta {
		p.retryAll()
	}
}

// spaceFound ends mode outOfData if there is space of every kind.
func (p *pool) spaceFound() {
	if p.mode() == modeOutOfData && !p.short.any() && p.md.FreeData() > 0 {
		p.setMode(modeWrite)
		p.deleting = true // it may have been held up
		p.retryAll()
	}
}

// waitForSpace passes a write to a mapped block that found no space to the owner.
func (t *thin) waitForSpace(c *dm.Clone) bool {
	h := hookOf(c)
	if c.Op != blk.Write || c.Flags&blk.NoWait != 0 || !h.allIO.In() {
		return false
	}
	t.back(c)
	h.refused = true
	t.deferBio(c)
	return true
}

// back undoes what was done to map c.
func (t *thin) back(c *dm.Clone) {
	t.leave(hookOf(c))
	if c.Op == blk.Write {
		c.Rewind()
		c.Sector = c.Offset()
	}
}

// awaitSpace makes bios that waited for a commit wait for space.
func awaitSpace(l dm.CloneList) {
	for c := l.Pop(); c != nil; c = l.Pop() {
		t := c.Target().Mapper().(*thin)
		t.back(c)
		t.refuse(c)
	}
}

// refuse lets the bios of a block that found no space wait, or fail.
func (m *mapping) refuse() {
	t, c := m.t, m.cell.Holder
	if m.clone != nil {
		t.back(c)
	}
	if t.pool.mode() == modeWrite {
		t.deferBio(c) // there is space by now
	} else {
		t.refuse(c)
	}
	t.deferCell(m.cell)
}
