package snapshot

import (
	"syscall"

	"udm/blk"
	"udm/dm"
)

// Merging removes exceptions from the end. Nothing is recorded meanwhile: a merging
// snapshot gets no new exceptions.

func (p *persistent) merger() merger { return p }

func (p *persistent) prepareMerge(done func(old, new, n uint64, err error)) {
	switch d, current := p.doubt(), p.current.Load(); {
	case d.n > 0:
		done(d.old, d.new, d.n, nil)
	case p.committed > 0:
		done(p.lastRun(p.committed))
	case current == 0:
		done(0, 0, 0, nil)
	default:
		p.readPrevious(current-1, done)
	}
}

// readPrevious reads area a, which is full, again.
func (p *persistent) readPrevious(a uint64, done func(old, new, n uint64, err error)) {
	b := &blk.Bio{Op: blk.Read, Sector: p.areaChunk(a) * p.chunk}
	b.SetData(p.area)
	b.End = func(b *blk.Bio) {
		if b.Status() != blk.OK {
			done(0, 0, 0, b.Status())
			return
		}
		p.current.Store(a)
		p.committed, p.written = p.perArea, p.perArea
		done(p.lastRun(p.perArea))
	}
	p.dev.Submit(b)
}

// lastRun returns how many of the last entries are consecutive in both devices.
func (p *persistent) lastRun(committed uint64) (old, new, n uint64, err error) {
	old, new = getEntry(p.area, committed-1)
	if new == 0 {
		return 0, 0, 0, dm.Errorf(syscall.EIO, "an area that was full has lost entries")
	}
	for n = 1; n < committed; n++ {
		o, w := getEntry(p.area, committed-1-n)
		if o+n != old || w+n != new {
			break
		}
	}
	return old, new, n, nil
}

func (p *persistent) doubt() (d mergedRun) {
	if u := p.unclear.Load(); u != nil {
		d = *u
	}
	return d
}

// commitMerge clears the last n entries. If that fails they are in doubt: they may be
// on the disk or not. Repeating it settles that.
func (p *persistent) commitMerge(n uint64, done func(error)) {
	if p.doubt().n == 0 {
		old, new := getEntry(p.area, p.committed-1)
		p.unclear.Store(&mergedRun{old, new, n})
	}
	left := p.committed - n
	clear(p.area[left*entrySize : p.committed*entrySize])
	d := &durable{}
	d.init(p, func(st blk.Status) {
		if st != blk.OK {
			done(st)
			return
		}
		p.unclear.Store(nil)
		p.committed, p.written = left, left
		p.startAt(p.current.Load()*p.perArea + left)
		done(nil)
	})
	d.write(p.entries(left, p.committed))
}

// endMerge writes entries back that are in doubt. If that fails they are written
// together with the next record, and stay in doubt until then. Places behind a hole
// in the store count as the next to be allocated.
func (p *persistent) endMerge(free uint64) error {
	p.startAt(max(p.dataNumber(max(free, 2)), p.free.Load()))
	d := p.doubt()
	for i := range d.n {
		putEntry(p.area, p.committed-1-i, d.old-i, d.new-i)
	}
	p.written = p.committed - d.n
	if d.n > 0 {
		if err := p.writeNow(p.entries(p.written, p.committed)); err != nil {
			return err
		}
	}
	p.unclear.Store(nil)
	p.leaveArea()
	return nil
}
