package dm

import (
	"udm/blk"
	"udm/internal/invariants"
)

// Cutting: how a bio becomes pieces. A piece goes to the end of its target or,
// for reads and writes, to the next multiple of the target's MaxIOLen; where the
// target's PartialUnit lets it, Map shortens it further. The original moves past
// each piece and is held open once more for it.

// splitAndMap sends a read or write piece by piece. The table is looked at
// again for each piece: the rest of a bio goes through the table that is live
// when its turn comes, or waits for one.
func (d *Device) splitAndMap(t *Table, b *blk.Bio) {
	for {
		ti := t.find(b.Sector)
		if ti == nil {
			b.Complete(blk.IOErr)
			return
		}
		p := ti.get()
		if !d.enter(p, t) {
			p.put()
			d.submitSlowly(b)
			return
		}
		if !p.send(b, ti.pieceLen(b)) {
			return
		}
	}
}

// mapHeld is splitAndMap for a bio whose caller holds the device: the worker's,
// which must go through although submitters are kept out.
func (d *Device) mapHeld(t *Table, b *blk.Bio) {
	for {
		ti := t.find(b.Sector)
		if ti == nil {
			b.Complete(blk.IOErr)
			return
		}
		p := ti.get()
		p.count()
		if !p.send(b, ti.pieceLen(b)) {
			return
		}
	}
}

// mapRange sends a discard or write-zeroes, cut at target borders only.
func (d *Device) mapRange(t *Table, b *blk.Bio) {
	for {
		ti := t.find(b.Sector)
		if ti == nil {
			b.Complete(blk.IOErr)
			return
		}
		n := ti.clones(b.Op)
		if n == 0 {
			b.Complete(blk.NotSupported)
			return
		}
		p := ti.get()
		p.count()
		if n == 1 {
			if !p.send(b, ti.pieceLen(b)) {
				return
			}
		} else if !p.sendMany(b, ti.pieceLen(b), n) {
			return
		}
	}
}

// pieceLen is how many sectors of b its first target takes: to the target's
// end and, for reads and writes, to the next multiple of MaxIOLen.
func (ti *Target) pieceLen(b *blk.Bio) uint64 {
	off := b.Sector - ti.Begin
	n := min(b.Sectors, ti.Len-off)
	if ti.MaxIOLen != 0 && b.Op.HasData() {
		n = min(n, ti.MaxIOLen-off%ti.MaxIOLen)
	}
	if invariants.Enabled {
		invariants.Check(off < ti.Len, "sector %d outside its target", b.Sector)
	}
	return n
}

// send maps the first n sectors of b, moves b past them, and reports whether
// there are more.
func (p *piece) send(b *blk.Bio, n uint64) (more bool) {
	p.orig, p.sectors = b, n
	p.Clone.CloneFrom(b)
	if p.dev.stats.Load() != nil {
		p.beginStats()
	}
	if more = n < b.Sectors; more {
		p.cut(b, n)
	}
	if p.target.mayAccept(p.Clone.Sector, n) {
		return p.sendPartial(b, more)
	}
	p.run()
	return more
}

// sendMany is send with n clones of the same range, told apart by Num.
func (p *piece) sendMany(b *blk.Bio, sectors uint64, n int) (more bool) {
	p.orig, p.sectors = b, sectors
	if p.dev.stats.Load() != nil {
		p.beginStats()
	}
	proto := blk.Bio{Op: b.Op, Flags: b.Flags, Sector: b.Sector, Sectors: sectors}
	if more = sectors < b.Sectors; more {
		p.cut(b, sectors)
	}
	p.begin(n)
	p.sendClones(p.target, &proto, n)
	p.partDone(blk.OK)
	return more
}

// cut makes p the first n sectors of b, which lives on as what comes after.
func (p *piece) cut(b *blk.Bio, n uint64) {
	p.split, p.pos = true, b.Position()
	p.Clone.Sectors = n
	b.Hold()
	b.Advance(n)
}

// mayAccept reports whether Map may take a part only of a read or write that is
// not longer than pieceLen.
func (ti *Target) mayAccept(sector, sectors uint64) bool {
	return ti.PartialUnit != 0 && (sector^(sector+sectors-1))&^(ti.PartialUnit-1) != 0
}

// sendPartial keeps one completion of b for what Map may leave.
func (p *piece) sendPartial(b *blk.Bio, more bool) bool {
	if !more {
		p.cut(b, p.sectors)
	}
	left := p.runPartial()
	if left > 0 {
		b.Rewind(left)
	}
	if more || left > 0 {
		return true
	}
	b.Complete(blk.OK)
	return false
}

// runPartial is run for a target that may accept a part only: it keeps the
// piece until Map has returned and tells how much Map left.
func (p *piece) runPartial() (left uint64) {
	whole := p.sectors
	p.parts.Store(2)
	p.status.Store(uint32(blk.OK))
	p.run()
	left = whole - p.sectors
	p.partDone(blk.OK)
	return left
}

// Accept shrinks the clone to its first n sectors, 0 < n <= Sectors; the rest of
// the bio is sent again. Only inside Map, where the target's PartialUnit lets it.
func (c *Clone) Accept(n uint64) {
	p := c.piece
	if p.stats != nil {
		p.cutStats(n)
	}
	c.Sectors, p.sectors = n, n
}
