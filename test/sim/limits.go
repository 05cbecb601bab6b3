package sim

import (
	"math/rand/v2"

	"udm/blk"
	"udm/dm"
)

// limit limits the users of d: by limits of its own, and by those of the group of all volumes.
func (w *harness) limit(d *dm.Device) {
	if len(w.throttles) == 0 {
		w.throttles = append(w.throttles, w.throttle())
	}
	own := w.throttle()
	w.throttles = append(w.throttles, own)
	d.Throttle(own, w.throttles[0])
}

func (w *harness) throttle() *dm.Throttle {
	t := dm.NewThrottle(w.sim)
	t.Set(someRates(w.rng))
	return t
}

// relimit changes a limit, while I/O waits for it perhaps.
func (w *harness) relimit(r *rand.Rand) {
	if len(w.throttles) == 0 {
		return
	}
	i, rates := r.IntN(len(w.throttles)), someRates(r)
	w.note("limit %d is %+v", i, rates)
	w.throttles[i].Set(rates)
}

// unlimit ends all limits once nothing waits for them.
func (w *harness) unlimit() {
	for _, t := range w.throttles {
		t.Close()
	}
	w.throttles = nil
}

// someRates draws limits, of which some limit nothing. The lowest let a round end within its
// patience.
func someRates(r *rand.Rand) dm.Rates {
	rate := func() dm.Rate { return dm.Rate{IOs: someBucket(r, 1), Bytes: someBucket(r, 16*blk.SectorSize)} }
	return dm.Rates{Read: rate(), Write: rate()}
}

func someBucket(r *rand.Rand, unit uint64) dm.Bucket {
	if r.IntN(3) == 0 {
		return dm.Bucket{}
	}
	return dm.Bucket{PerSecond: unit * (4 + r.Uint64N(2000)), Burst: unit * r.Uint64N(20)}
}
