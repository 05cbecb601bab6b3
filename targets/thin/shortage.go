package thin

import (
	"udm/blk"
	"udm/dm"
)

// The disks below a pool may lie on file systems that are full. (In the kernel
// writes fail then, and a commit that fails makes the pool read-only with
// needs_check.) A write that finds no space there can be repeated, so the pool is out of data space, whichever disk it is: writes that need
// space wait or fail, all else goes on, and the next try is a second away.
//
//	data device      a block has its space before it is mapped: it is zeroed without
//	                 a hole, copied or overwritten. What finds none gives the block
//	                 back and waits, and so does a write to a block that is mapped
//	metadata device  a commit stays as it is until it can be written ([pdata.Super]).
//	                 Until then no metadata is changed: flushes and FUA writes that
//	                 need a commit wait, too, and a discard does nothing
//
// With each tick all that waits is tried. The metadata device has space again when the
// commit is through, the data device when nobody was refused since the last tick and
// what waited is under way no more, or a block was prepared. Where nobody waits, one
// write at a time is let through to see, and a block has to be prepared.

// shortage is what is known of full disks below a pool. The owner's.
type shortage struct {
	data, meta bool
	refused    bool // the data device had no space since the last try
	took       bool // it had some
}

func (s *shortage) any() bool { return s.data || s.meta }

// dataFull is called when a write to the data device finds no space.
func (p *pool) dataFull() {
	if !p.short.data {
		p.log().Warn("no space on the disk below the data device; make some")
	}
	p.short.data, p.short.refused = true, true
	p.outOfSpace()
}

// metadataFull is called when a commit finds no space, be it below the data device,
// which it flushes.
func (p *pool) metadataFull() {
	if !p.short.meta {
		p.log().Warn("no space on the disk below for a commit of the metadata; make some")
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

// tryAgain looks whether there is space again.
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
		p.deleting = true // it was held up, perhaps
		p.retryAll()
	}
}

// waitForSpace hands a write to a mapped block that found no space over to the
// owner.
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

// awaitSpace lets bios wait for space that were to be issued or ended after a commit.
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
