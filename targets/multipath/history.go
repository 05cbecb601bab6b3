package multipath

import (
	"time"

	"udm/env"
)

// historical prefers the path whose bios have taken the shortest time, multiplied by how
// many it would have. The time of a path is a moving average: of each new value, the older
// ones keep the more weight the shorter it is, as it then comes more often.
//
// Times are in nanoseconds with ten more bits.
type historical struct {
	env       env.Env
	weights   [buckets]uint64 // of the average, by the new value
	threshold uint64          // times that differ by less than this factor are alike
}

const (
	fixed      = 10 // bits behind the point
	half       = 1 << (fixed - 1)
	buckets    = 64
	bucketBits = 24 // a bucket is 16 ms wide
	maxTime    = 1<<(64-2*fixed) - 1
)

// times is what is known of a path.
type times struct {
	average uint64        // see historical
	last    time.Duration // when a bio ended
	stale   time.Duration // when the average is old if no bio has ended
}

func newHistorical(g *Group, e env.Env) selector {
	h := &historical{env: e, threshold: max(1, uint64(g.Threshold))}
	w := uint64(one)
	for i := range buckets - 1 {
		w = (w*uint64(g.Weight) + half) >> fixed
		h.weights[i] = w
	}
	return h
}

func (h *historical) better(a, b *path, _ uint64) bool {
	now := h.env.Now()
	if oldA, oldB := a.late(now), b.late(now); oldA != oldB {
		return oldB
	}
	ta, tb := max(1, a.times.average), max(1, b.times.average)
	if ta <= tb*h.threshold && tb <= ta*h.threshold && h.threshold > 1 {
		return a.bios < b.bios
	}
	return float64(ta)*float64(a.bios+1) < float64(tb)*float64(b.bios+1)
}

// late reports whether the path has bios, and has not ended one for longer than they take.
func (p *path) late(now time.Duration) bool { return p.bios > 0 && now > p.times.stale }

func (h *historical) begin() time.Duration { return h.env.Now() }

// end counts a bio from its begin, or from the end of the one before it: those of one path
// count as if they were done one after the other.
func (h *historical) end(p *path, began time.Duration) {
	now := h.env.Now()
	took := min(uint64(max(0, now-max(began, p.times.last))), maxTime)
	w := uint64(0)
	if i := took >> bucketBits; i < buckets {
		w = h.weights[i]
	}
	p.times.average = (p.times.average*w + took<<fixed*(one-w) + half) >> fixed
	p.times.last = now
	p.times.stale = now + 2*time.Duration(p.times.average>>fixed)
}

func (h *historical) status(p *path) []uint64 {
	return []uint64{p.times.average, p.bios, uint64(p.times.stale)}
}
