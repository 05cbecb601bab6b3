package dm

import (
	"sync/atomic"
	"time"

	"udm/blk"
)

// Statistics of regions of a device (drivers/md/dm-stats.c; the manual is
// Documentation/admin-guide/device-mapper/statistics.rst).
//
// A region is a range of sectors that is divided into areas of equal length. A piece
// counts in every area that it touches: as in flight from its beginning, and in the
// other counters when it ends. A piece that its target refuses (Kill, Requeue) is in
// flight for a moment and counts nowhere else.
//
// Device.stats is nil without regions, accounting (account.go) and tracing (trace.go), so
// that I/O costs one load then. A set of regions never changes; it is replaced by another one. A piece keeps
// the set that it began with, and a region is added while nothing is in flight, so every
// piece leaves the areas that it has entered.

// statsRef is the set of regions of a device in the order of their ids, whether its I/O is
// accounted as well, and who traces it. It never changes.
type statsRef struct {
	regions   []*region
	accounted bool
	tracers   []*Tracer
}

// region is one region. Only aux and the counters change.
type region struct {
	id               int
	start, end, step uint64        // sectors
	unit             time.Duration // of all times: a millisecond; if precise, a nanosecond
	bounds           []uint64      // of the histogram, in units; ascending
	program          string
	aux              atomic.Pointer[string]
	areas            []areaStats
	histogram        []atomic.Uint64 // len(bounds)+1 for each area
}

// areaStats fills a pair of cache lines: areas are used from different processors.
type areaStats struct {
	inFlight [2]atomic.Int64 // all pairs: reads, writes
	stamp    atomic.Int64    // the time up to which the times below have been counted
	ios      [2]atomic.Uint64
	merges   [2]atomic.Uint64
	sectors  [2]atomic.Uint64
	ticks    [2]atomic.Uint64 // sum of the times from beginning to end
	busy     [2]atomic.Uint64 // time with at least one in flight
	busyAny  atomic.Uint64
	queued   atomic.Uint64 // time multiplied by the number in flight
	_        [8]byte
}

const areaSize = 128 // bytes

// ioSpan is the direction and the range of a piece.
type ioSpan struct {
	dir        int // 0 read, 1 everything else
	begin, end uint64
}

func (p *piece) span() ioSpan {
	s := ioSpan{begin: p.orig.Sector}
	if p.split {
		s.begin = p.pos.Sector
	}
	if p.orig.Op.IsWrite() {
		s.dir = 1
	}
	s.end = s.begin + p.sectors
	return s
}

// beginStats begins to count a piece that orig has not advanced past yet. Regions do not
// count a piece without sectors.
func (p *piece) beginStats() {
	ref := p.dev.stats.Load()
	if ref == nil {
		return
	}
	p.stats, p.start, p.entered = ref, p.dev.env.Now(), false
	if len(ref.tracers) > 0 {
		p.traceQueued()
	}
	if !p.target.AccountsIssue {
		p.enterStats(p.start)
	}
}

// issued counts a piece whose clone is sent below.
func (p *piece) issued(c *Clone) {
	if !p.entered {
		p.enterStats(p.dev.env.Now())
	}
	if len(p.stats.tracers) > 0 {
		p.traceIssued(c)
	}
}

// enterStats counts the piece as in flight.
func (p *piece) enterStats(now time.Duration) {
	if len(p.stats.regions) == 0 || p.sectors == 0 {
		return
	}
	s := p.span()
	p.merged, p.entered = p.dev.mergesLikeLinux(s), true
	p.stats.enter(s, now)
}

// mergesLikeLinux reports whether Linux counts a merge for s: because of a mistake in
// operator precedence, Linux compares the sector with the truth value of "the direction
// is that of the I/O before".
func (d *Device) mergesLikeLinux(s ioSpan) bool {
	write := s.dir == 1
	same := d.lastWrite.Load() == write
	if !same {
		d.lastWrite.Store(write)
	}
	return s.begin == 1 && same || s.begin == 0 && !same
}

// endStats counts the end of a piece with a status. One that was pushed back is not
// accounted: it will be sent again.
func (p *piece) endStats(st blk.Status) {
	ref, now := p.stats, p.dev.env.Now()
	if len(ref.tracers) > 0 {
		p.traceEnd(st)
	}
	p.stats = nil
	if ref.accounted && st != statusRequeue {
		p.accountEnd(now - p.start)
	}
	if !p.entered {
		return
	}
	s := p.span()
	for _, r := range ref.regions {
		for i, n := range r.fragments(s) {
			r.leave(i, s.dir, now)
			r.count(i, s.dir, n, p.merged, now/r.unit-p.start/r.unit)
		}
	}
}

// dropStats undoes beginStats for a piece that its target has refused with a status.
func (p *piece) dropStats(st blk.Status) {
	if len(p.stats.tracers) > 0 {
		p.traceEnd(st)
	}
	if p.entered {
		p.stats.leave(p.span(), p.dev.env.Now())
	}
	p.stats = nil
}

// cutStats makes a piece count only for its first n sectors.
func (p *piece) cutStats(n uint64) {
	if !p.entered {
		return
	}
	s, now := p.span(), p.dev.env.Now()
	p.stats.leave(s, now)
	s.end = s.begin + n
	p.stats.enter(s, now)
}

func (ref *statsRef) enter(s ioSpan, now time.Duration) {
	for _, r := range ref.regions {
		for i := range r.fragments(s) {
			r.areas[i].round(now / r.unit)
			r.areas[i].inFlight[s.dir].Add(1)
		}
	}
}

func (ref *statsRef) leave(s ioSpan, now time.Duration) {
	for _, r := range ref.regions {
		for i := range r.fragments(s) {
			r.leave(i, s.dir, now)
		}
	}
}

func (r *region) leave(i, dir int, now time.Duration) {
	r.areas[i].round(now / r.unit)
	r.areas[i].inFlight[dir].Add(-1)
}

// fragments yields the areas that s touches, and how many sectors of each.
func (r *region) fragments(s ioSpan) func(yield func(i int, sectors uint64) bool) {
	return func(yield func(int, uint64) bool) {
		at, end := max(s.begin, r.start), min(s.end, r.end)
		for at < end {
			i, off := (at-r.start)/r.step, (at-r.start)%r.step
			n := min(end-at, r.step-off)
			if !yield(int(i), n) {
				return
			}
			at += n
		}
	}
}

// round adds the time since the last round to the times, according to what was in
// flight. Of two calls at the same moment one does it.
func (a *areaStats) round(now time.Duration) {
	since := a.stamp.Load()
	diff := int64(now) - since
	if diff <= 0 || !a.stamp.CompareAndSwap(since, int64(now)) {
		return
	}
	reads, writes := a.inFlight[0].Load(), a.inFlight[1].Load()
	if reads > 0 {
		a.busy[0].Add(uint64(diff))
	}
	if writes > 0 {
		a.busy[1].Add(uint64(diff))
	}
	if all := reads + writes; all > 0 {
		a.busyAny.Add(uint64(diff))
		a.queued.Add(uint64(all * diff))
	}
}

func (r *region) count(i, dir int, sectors uint64, merged bool, took time.Duration) {
	a := &r.areas[i]
	a.ios[dir].Add(1)
	a.sectors[dir].Add(sectors)
	a.ticks[dir].Add(uint64(took))
	if merged {
		a.merges[dir].Add(1)
	}
	if len(r.bounds) > 0 {
		r.buckets(i)[r.bucket(uint64(took))].Add(1)
	}
}

// buckets returns the histogram of area i.
func (r *region) buckets(i int) []atomic.Uint64 {
	n := len(r.bounds) + 1
	return r.histogram[i*n : (i+1)*n]
}

// bucket returns the index of the bucket for took: the number of bounds that do not
// exceed it.
func (r *region) bucket(took uint64) int {
	lo, hi := 0, len(r.bounds)
	for lo < hi {
		if mid := (lo + hi) / 2; r.bounds[mid] > took {
			hi = mid
		} else {
			lo = mid + 1
		}
	}
	return lo
}
