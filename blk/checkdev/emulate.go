package checkdev

import (
	"sync"

	"udm/blk"
)

const (
	maxParts   = 4        // bios in flight for one emulated bio
	zeroBlock  = 64 << 10 // bytes of zeroes in memory, shared by all
	zeroRepeat = 16       // times that a write of zeroes repeats them
	zeroChunk  = zeroBlock * zeroRepeat / blk.SectorSize
	copyChunk  = 256 << 10 / blk.SectorSize // most sectors of unstable data in a part
)

// zeroes is a vector of 1 MiB over 64 KiB of memory. It is never written to.
var zeroes = func() (v [zeroRepeat][]byte) {
	p := make([]byte, zeroBlock)
	for i := range v {
		v[i] = p
	}
	return v
}()

// chunk is the length in sectors of the longest bio of an op that the device
// accepts; for write-zeroes on a device without it, of a write of zeroes.
func chunk(op blk.Op, l *blk.Limits) uint64 {
	n := uint64(l.MaxSectors)
	switch {
	case op == blk.Discard:
		n = l.MaxDiscard
	case op == blk.WriteZeroes && l.MaxWriteZeroes != 0:
		n = l.MaxWriteZeroes
	case op == blk.WriteZeroes && (n == 0 || n > zeroChunk):
		n = zeroChunk
	case n == 0:
		return ^uint64(0)
	}
	block := uint64(l.LogicalBlock / blk.SectorSize)
	return max(n-n%block, block)
}

// stage is a step of an emulated bio. Each stage waits for the previous one; a
// failure leads to finished.
type stage uint8

const (
	preflush stage = iota
	data
	postflush
	finished
)

// req is an emulated bio in flight. A caller that finds it not running runs it:
// takes parts from it and submits them until none is ready. A part that ends
// inline finds it running and returns, so nothing recurses.
//
// Lock order: mu is a leaf; nothing is submitted or completed under it.
type req struct {
	d      *Device
	parent *blk.Bio
	flags  blk.Flags // of the parts
	zero   bool      // write zeroes rather than pass the op on
	copy   bool      // write copies of the data
	flush  [2]bool   // whether there is a preflush, a postflush
	chunk  uint64    // sectors in a part
	align  uint64    // sectors; parts end at multiples of it where they can

	mu      sync.Mutex
	running bool    // guarded by mu
	stage   stage   // guarded by mu
	issued  bool    // guarded by mu; the flush of this stage was issued
	rest    blk.Bio // guarded by mu; the data not yet issued
	free    []*part // guarded by mu; parts not in flight

	parts [maxParts]part
}

// part is one bio below.
type part struct {
	r    *req
	bio  blk.Bio
	data []byte // for copies; kept from one use of the req to the next
}

func newReq() any {
	r := &req{}
	for i := range r.parts {
		p := &r.parts[i]
		p.r = r
		p.bio.End = func(*blk.Bio) { p.end() }
		r.free = append(r.free, p)
	}
	return r
}

func (d *Device) emulate(b *blk.Bio, l *blk.Limits) {
	r := d.reqs.Get().(*req)
	r.d, r.parent, r.flags = d, b, b.Flags&^blk.Preflush
	r.zero = b.Op == blk.WriteZeroes && l.MaxWriteZeroes == 0
	r.chunk, r.align = chunk(b.Op, l), 1
	if b.Op == blk.Discard {
		r.align = max(1, uint64(l.DiscardGranularity)/blk.SectorSize)
	}
	if r.zero {
		r.flags &^= blk.NoUnmap | blk.FastZero
	}
	if r.copy = b.Flags&blk.Unstable != 0 && l.StableWrites; r.copy {
		r.flags &^= blk.Unstable
		r.chunk = min(r.chunk, copyChunk)
	}
	if !l.FUA {
		r.flags &^= blk.FUA
	}
	r.flush = [2]bool{
		b.Flags&blk.Preflush != 0 && l.VolatileCache,
		b.Flags&^r.flags&blk.FUA != 0 && l.VolatileCache,
	}
	r.stage, r.issued, r.running = preflush, false, true
	r.rest.CloneFrom(b)
	r.run()
}

// end returns a part to the request.
func (p *part) end() {
	r := p.r
	r.parent.SetStatus(p.bio.Status())
	r.mu.Lock()
	r.free = append(r.free, p)
	run := !r.running
	r.running = true
	r.mu.Unlock()
	if run {
		r.run()
	}
}

// run submits the ready parts and completes the parent after the last one. The
// caller has set running.
func (r *req) run() {
	for {
		r.mu.Lock()
		p := r.nextLocked()
		done := r.stage == finished
		if p == nil {
			r.running = false
		}
		r.mu.Unlock()
		switch {
		case p != nil:
			r.d.lower.Submit(&p.bio)
		case done:
			r.finish()
			return
		default:
			return
		}
	}
}

// nextLocked prepares the next part, moving to the next stage if necessary. It
// returns nil if nothing can be done until a part ends, and at the end.
func (r *req) nextLocked() *part {
	for r.stage != finished {
		idle := len(r.free) == maxParts
		failed := r.parent.Status() != blk.OK
		switch {
		case failed && !idle || len(r.free) == 0:
			return nil
		case failed:
			r.stage = finished
		case r.stage == data && r.rest.Sectors > 0:
			return r.carveLocked()
		case r.stage != data && r.flush[r.stage/2] && !r.issued:
			r.issued = true
			return r.flushLocked()
		case !idle:
			return nil
		default:
			r.stage, r.issued = r.stage+1, false
		}
	}
	return nil
}

func (r *req) partLocked() *part {
	n := len(r.free) - 1
	p := r.free[n]
	r.free = r.free[:n]
	return p
}

func (r *req) flushLocked() *part {
	p := r.partLocked()
	p.bio.CloneFrom(&blk.Bio{Op: blk.Flush})
	return p
}

// carveLocked makes a part of the next piece of the data.
func (r *req) carveLocked() *part {
	p := r.partLocked()
	n := r.rest.Sectors
	if n > r.chunk {
		n = r.chunk
		if over := (r.rest.Sector + n) % r.align; over < n {
			n -= over
		}
	}
	p.bio.CloneFrom(&r.rest)
	p.bio.Sectors, p.bio.Flags = n, r.flags
	if r.zero {
		p.bio.Op = blk.Write
		p.bio.SetBufs(zeroes[:], n)
	}
	if r.copy {
		p.stabilise()
	}
	r.rest.Advance(n)
	return p
}

// stabilise replaces the part's data with a copy.
func (p *part) stabilise() {
	n := p.bio.Bytes()
	if uint64(len(p.data)) < n {
		p.data = make([]byte, n)
	}
	p.bio.CopyOut(p.data[:n])
	p.bio.SetData(p.data[:n])
}

// finish completes the parent and returns r to the pool with all parts free.
func (r *req) finish() {
	b, d := r.parent, r.d
	r.parent, r.d = nil, nil
	r.rest.Reset()
	for i := range r.parts {
		r.parts[i].bio.Bufs = nil
	}
	d.reqs.Put(r)
	b.Complete(blk.OK)
}
