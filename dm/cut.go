package dm

import (
	"udm/blk"
	"udm/internal/invariants"
)

// Cutting: how a bio becomes pieces. A piece ends where its target ends or, for
// reads and writes, at the next multiple of the target's MaxIOLen; Map may shorten
// it further if the target has a PartialUnit. The original bio advances past each
// piece and gets one hold for it, so that it ends after its last piece.

// splitAndMap sends a read or write piece by piece. The table is checked again for
// each piece: the rest of a bio goes through the table that is live when its turn
// comes, or waits for one.
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

// mapHeld is splitAndMap for callers that hold the device, such as the worker. The
// bio is mapped although submitters are kept out.
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

// mapRange sends a discard or write-zeroes, cut only where targets end.
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

// pieceLen returns how many sectors of b its first target takes: up to the target's
// end and, for reads and writes, up to the next multiple of MaxIOLen.
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

// send maps the first n sectors of b, advances b past them, and reports whether
// sectors are left.
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

// sendMany is send with n clones of the same range, which differ in Num.
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

// cut makes p the first n sectors of b and advances b to the rest.
func (p *piece) cut(b *blk.Bio, n uint64) {
	p.split, p.pos = true, b.Position()
	p.Clone.Sectors = n
	b.Hold()
	b.Advance(n)
}

// mayAccept reports whether Map may take only a part of a read or write that is not
// longer than pieceLen.
func (ti *Target) mayAccept(sector, sectors uint64) bool {
	return ti.PartialUnit != 0 && (sector^(sector+sectors-1))&^(ti.PartialUnit-1) != 0
}

// sendPartial sends a piece of which Map may take only a part. It keeps one hold on
// b for the part that Map may leave.
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

// runPartial is run for a target that may accept only a part. It keeps the piece
// until Map has returned, and returns how many sectors Map left.
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
// the bio is mapped afterwards as another piece. Only Map may call it, for reads and
// writes that cross a multiple of the target's PartialUnit.
func (c *Clone) Accept(n uint64) {
	p := c.piece
	if p.stats != nil {
		p.cutStats(n)
	}
	c.Sectors, p.sectors = n, n
}
