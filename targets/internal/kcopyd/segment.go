package kcopyd

import (
	"sync/atomic"
	"time"

	"udm/blk"
	"udm/internal/list"
)

// segment does a job's I/O piece by piece with one buffer. It is a loop over stages;
// each submits bios and ends when all of them have ended:
//
//	  ┌───────────────────────────────────────────────────────┐
//	  ▼                                                       │
//	begin ─ piece claimed ─► ready ─► reading ─ ok ─► writing ─┤
//	  │                        │         └─ failed ────────────┤
//	  │ no more                └─ nothing to read ─► writing ──┘
//	  ▼
//	gone
//
// gate counts the bios of a stage and their submitter. The last of them to finish
// runs the next stage, so that devices that complete inline cause a loop, not a
// recursion.
type segment struct {
	c     *Client
	job   *Job
	shard *Shard // that counts the buffer
	buf   []byte // nil for zeroing
	size  int    // class of the buffer: see memory

	stage   stage
	gate    atomic.Int32
	off, n  uint64        // the piece: sectors from the job's begin
	pauses  int           // how often the throttle held the piece back
	due     time.Duration // when its pause is over
	counted bool          // the throttle counts its I/O
	fast    bool          // the piece is the whole job, to be zeroed by write-zeroes
	again   atomic.Bool   // a destination has refused that
	read    blk.Bio
	writes  []blk.Bio // one for each destination; grows as needed
	one     [1]blk.Bio
	readEnd func(*blk.Bio)
	wrote   func(*blk.Bio)

	next *segment // link of the list that it waits in
}

type stage uint8

const (
	begin stage = iota
	ready
	reading
	writing
)

type segList = list.List[segment, *segment]

func (s *segment) Link() **segment { return &s.next }

func newSegment(c *Client, class int) *segment {
	s := &segment{c: c, size: class}
	if class >= 0 {
		s.buf = make([]byte, classBytes(class))
	}
	s.writes = s.one[:]
	s.readEnd, s.wrote = s.endRead, s.endWrite
	return s
}

// startSegment starts one of j's segments once there is memory for it.
func (c *Client) startSegment(j *Job) {
	class := noBuffer
	if !j.zero {
		class = classOf(min(j.Sectors, c.subJob))
	}
	if s := c.mem.get(j, class); s != nil {
		s.run()
	}
}

// run runs stages until one has to wait for a bio.
func (s *segment) run() {
	for s != nil && s.enter() {
		if s.job == nil {
			s = s.c.mem.put(s)
		}
	}
}

// enter starts the next stage and reports whether it is over already.
func (s *segment) enter() bool {
	switch s.stage {
	case begin:
		s.enterBegin()
		return true
	case ready:
		if t := s.c.throttle; t != nil && t.limits() && s.c.holdBack(s) {
			return false
		}
		if s.job.zero {
			return s.enterWriting()
		}
		return s.enterReading()
	case reading:
		if s.read.Status() == blk.OK || s.job.IgnoreErrors {
			return s.enterWriting()
		}
	}
	s.pieceDone()
	return true
}

// enterBegin claims the next piece or leaves the job.
func (s *segment) enterBegin() {
	if s.take() {
		s.stage, s.pauses = ready, 0
		return
	}
	j := s.job
	s.job = nil
	s.c.segmentDone(j)
}

// pieceDone ends a piece. If write-zeroes were refused the job begins again, with data: it
// has no other segment.
func (s *segment) pieceDone() {
	s.stage = begin
	if s.again.Swap(false) {
		s.job.progress.Store(0)
	}
	if s.counted {
		s.counted = false
		s.c.throttle.finish()
	}
}

// take claims the next piece of the job, unless none is left or the job has
// failed.
func (s *segment) take() bool {
	j := s.job
	if !j.IgnoreErrors && (j.readBad.Load() || j.writeBad.Load() != 0) {
		return false
	}
	step := s.c.subJob
	if s.fast = j.zero && j.zeroable(); s.fast {
		step = j.Sectors
	}
	end := j.progress.Add(step)
	s.off = end - step
	if s.off >= j.Sectors {
		return false
	}
	s.n = min(step, j.Sectors-s.off)
	return true
}

func (s *segment) enterReading() bool {
	s.stage = reading
	s.gate.Store(2)
	b := &s.read
	b.Rearm()
	b.Op, b.Sector, b.End = blk.Read, s.job.From.Sector+s.off, s.readEnd
	b.SetData(s.buf[:s.n*blk.SectorSize])
	s.job.From.Dev.Submit(b)
	return s.pass()
}

// pass decrements the gate and reports whether it reached zero.
func (s *segment) pass() bool { return s.gate.Add(-1) == 0 }

func (s *segment) endRead(b *blk.Bio) {
	if b.Status() != blk.OK {
		s.job.readBad.Store(true)
	}
	if s.pass() {
		s.run()
	}
}

func (s *segment) enterWriting() bool {
	s.stage = writing
	n := len(s.job.To)
	if len(s.writes) < n {
		s.writes = make([]blk.Bio, n)
	}
	s.gate.Store(int32(n) + 1)
	for i, to := range s.job.To {
		s.write(i, to)
	}
	return s.pass()
}

// write submits the piece to destination i.
func (s *segment) write(i int, to Place) {
	b := &s.writes[i]
	b.Rearm()
	b.Op, b.Flags, b.Sector, b.End, b.Private = blk.Write, 0, to.Sector+s.off, s.wrote, i
	switch {
	case s.fast:
		b.Op, b.Sectors = blk.WriteZeroes, s.n
		if s.job.NoUnmap {
			b.Flags = blk.NoUnmap
		}
	case s.job.zero:
		b.SetBufs(zeroes(), s.n)
	default:
		b.SetData(s.buf[:s.n*blk.SectorSize])
	}
	to.Dev.Submit(b)
}

func (s *segment) endWrite(b *blk.Bio) {
	switch st := b.Status(); {
	case st == blk.OK:
	case st == blk.NotSupported && s.fast:
		s.job.To[b.Private.(int)].Dev.refused.Store(true)
		s.again.Store(true)
	default:
		s.job.writeBad.Or(1 << b.Private.(int))
		if st != blk.NoSpace {
			s.job.worse.Store(true)
		}
	}
	if s.pass() {
		s.run()
	}
}

// Submit sends b to the device in pieces that the device accepts.
func (d *Dev) Submit(b *blk.Bio) {
	most := d.maxData
	if b.Op == blk.WriteZeroes {
		most = d.maxZeroes
	}
	for b.Sectors > most {
		p := &blk.Bio{End: func(p *blk.Bio) { b.Complete(p.Status()) }}
		p.CloneFrom(b)
		p.Sectors = most
		b.Hold()
		b.Advance(most)
		d.Device.Submit(p)
	}
	d.Device.Submit(b)
}
