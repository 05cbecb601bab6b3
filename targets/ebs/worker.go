package ebs

import (
	"udm/blk"
	"udm/dm"
)

// worker transfers one clone at a time.
type worker struct {
	*ebs
	block []byte // nil until it is needed
}

func (w *worker) work(c *dm.Clone) {
	if c.Op == blk.Discard || (c.Sector|c.Sectors)%w.unit == 0 {
		c.Issue() // it has waited for its units
		return
	}
	c.Complete(w.transfer(&c.Bio))
}

// transfer reads or writes the data of b, of which it leaves none.
func (w *worker) transfer(b *blk.Bio) blk.Status {
	size := w.unit
	for b.Sectors > 0 {
		st, done := blk.OK, b.Sectors/size*size
		if b.Sector%size == 0 && done > 0 {
			st = blk.Do(w.target.Env(), w.segment.Dev, first(b, done))
		} else {
			done = min(b.Sectors, size-b.Sector%size)
			st = w.part(b, done)
		}
		if st != blk.OK {
			return st
		}
		b.Advance(done)
	}
	return blk.OK
}

// first is the first sectors of b.
func first(b *blk.Bio, sectors uint64) *blk.Bio {
	f := &blk.Bio{}
	f.CloneFrom(b)
	f.Sectors = sectors
	return f
}

// part transfers the first sectors of b, which are a part of one unit.
func (w *worker) part(b *blk.Bio, sectors uint64) blk.Status {
	env, dev := w.target.Env(), w.segment.Dev
	start := b.Sector / w.unit * w.unit
	buffer := w.buffer(start)
	if err := blk.ReadSectors(env, dev, buffer, start); err != nil {
		return blk.StatusOf(err)
	}
	data := buffer[(b.Sector-start)*blk.SectorSize:]
	if b.Op == blk.Read {
		first(b, sectors).CopyIn(data)
		return blk.OK
	}
	first(b, sectors).CopyOut(data)
	return blk.StatusOf(blk.WriteSectors(env, dev, buffer, start, b.Flags&blk.FUA))
}

// buffer is the memory for the unit that starts at a sector, of which the device may have
// a part only.
func (w *worker) buffer(start uint64) []byte {
	n := w.unit
	if w.block == nil {
		w.block = make([]byte, n*blk.SectorSize)
	}
	if size := w.segment.Dev.Limits().Size; start < size {
		n = min(n, size-start)
	}
	return w.block[:n*blk.SectorSize]
}
