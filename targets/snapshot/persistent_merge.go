package snapshot

import (
	"syscall"

	"udm/blk"
	"udm/dm"
)

// Merging takes exceptions out from the end. Nothing is recorded meanwhile: a
// merging snapshot gets no exceptions.

func (p *persistent) merger() merger { return p }

func (p *persistent) prepareMerge(done func(old, new, n uint64, err error)) {
	p.mu.Lock()
	committed, current := p.committed, p.current
	p.mu.Unlock()
	switch d := p.doubt(); {
	case d.n > 0:
		done(d.old, d.new, d.n, nil)
	case committed > 0:
		done(p.lastRun(committed))
	case current == 0:
		done(0, 0, 0, nil)
	default:
		p.readPrevious(current-1, done)
	}
}

// readPrevious goes back to area a, which is full.
func (p *persistent) readPrevious(a uint64, done func(old, new, n uint64, err error)) {
	b := &blk.Bio{Op: blk.Read, Sector: p.areaChunk(a) * p.chunk}
	b.SetData(p.area)
	b.End = func(b *blk.Bio) {
		if b.Status() != blk.OK {
			done(0, 0, 0, b.Status())
			return
		}
		p.mu.Lock()
		p.current, p.committed = a, p.perArea
		p.mu.Unlock()
		p.written = p.perArea
		done(p.lastRun(p.perArea))
	}
	p.dev.Submit(b)
}

// lastRun finds how many of the last entries are consecutive in both chunks.
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

// commitMerge clears the last n entries. Until that is durable they may be there
// or not, so they are in doubt if it fails; doing it again settles it.
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
		p.mu.Lock()
		p.committed = left
		p.mu.Unlock()
		p.written = left
		p.nextFree.Store(p.areaChunk(p.current) + left + 1)
		done(nil)
	})
	d.write(p.entries(left, p.committed))
}

// endMerge puts entries that are in doubt back. If that fails, the next record
// takes them with it; until then they are in doubt. Places behind a hole in the
// store are as good as the next ones to be given out.
func (p *persistent) endMerge(free uint64) error {
	p.nextFree.Store(p.skipArea(max(free, p.nextFree.Load())))
	d := p.doubt()
	for i := range d.n {
		putEntry(p.area, p.committed-1-i, d.old-i, d.new-i)
	}
	p.written = p.committed - d.n
	var err error
	if d.n > 0 {
		err = p.writeNow(p.entries(p.written, p.committed))
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case err == nil:
		p.unclear.Store(nil)
		p.leaveAreaLocked()
		p.written = p.committed
	case p.committed == p.perArea:
		p.valid = false // no record will write this area
	}
	return err
}
