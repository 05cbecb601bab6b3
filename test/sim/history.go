package sim

import (
	"math/rand/v2"
	"time"

	"udm/blk"
)

// The limits of one history.
const (
	maxRounds   = 4
	maxRoundOps = 60
	maxInFlight = 6  // bios of one volume in flight
	maxSectors  = 40 // of one bio
)

// live runs a whole history. A panic, such as that of a deadlock or of a broken invariant,
// is a finding.
func live(seed uint64, k kind, skip func(int) bool) (w *harness) {
	w = &harness{seed: seed, rng: rand.New(rand.NewPCG(seed, 1)), skip: skip, faulty: k.errors, injects: k.errors, hard: k.hard, far: k.far, limited: k.limited}
	defer func() {
		if r := recover(); r != nil {
			w.fail("%v", r)
		}
	}()
	if k.full {
		w.host = newHost(w.rng)
	}
	w.sc = k.make(w.rng)
	w.sc.prepare(w)
	rounds := 1 + w.rng.IntN(maxRounds)
	for i := range rounds {
		w.boot()
		w.readAll()
		w.round(1 + w.rng.IntN(maxRoundOps))
		if len(w.errs) > 0 || w.last {
			return w
		}
		if i < rounds-1 && w.rng.IntN(4) > 0 {
			w.cut()
			continue
		}
		w.readAll()
		w.stop()
		w.task(func() { w.sc.verify(w) })
	}
	return w
}

// kind is a kind of histories.
type kind struct {
	name   string
	make   func(*rand.Rand) scenario
	errors bool // disks fail from time to time
	hard   bool // see harness
	full   bool // the disks lie on a host that is full from time to time
	far    bool // see harness
	// limited: users' I/O is limited, and the limits change
	limited bool
	long    bool // a history takes long: a quarter as many
}

// round starts n operations. Some are still under way when it returns.
func (w *harness) round(n int) {
	w.breaking, w.begun = w.injects, true
	defer func() { w.breaking = false }()
	w.task(func() {
		for range n {
			w.ops++
			r := rand.New(rand.NewPCG(w.seed, uint64(w.ops)<<8))
			if w.skip == nil || !w.skip(w.ops) {
				w.operation(r)
			}
			if len(w.errs) > 0 {
				return
			}
		}
	})
}

func (w *harness) operation(r *rand.Rand) {
	w.stats.ops++
	if w.host != nil && r.IntN(10) == 0 {
		w.fill(r)
	}
	if w.far && r.IntN(10) == 0 {
		w.disconnect(r)
	}
	if w.limited && r.IntN(10) == 0 {
		w.relimit(r)
	}
	switch k := r.IntN(100); {
	case k < 10:
		w.sleep(time.Duration(r.IntN(20)) * time.Millisecond)
	case k < 18:
		w.beside(r)
	default:
		if len(w.vols) > 0 {
			w.io(r, w.vols[r.IntN(len(w.vols))])
		}
	}
}

// disconnect loses the connection to a disk, at times for longer than anything waits for
// space.
func (w *harness) disconnect(r *rand.Rand) {
	d, lasts := w.disks[r.IntN(len(w.disks))], ms(r, 50)
	switch r.IntN(20) {
	case 0:
		lasts += 70 * time.Second
	case 1, 2:
		lasts += ms(r, 4000)
	}
	w.note("%v is out of reach for %v", d, lasts)
	d.disconnect(lasts)
}

// beside starts a control operation, unless one is under way.
func (w *harness) beside(r *rand.Rand) {
	if w.busy {
		return
	}
	w.busy = true
	w.sim.Go("control", func() {
		w.sc.control(w, r)
		w.busy = false
	})
}

// readAll compares the whole content of every volume with its model.
func (w *harness) readAll() {
	w.quiet()
	for _, v := range append([]*volume(nil), w.vols...) {
		w.task(func() { w.readWhole(v) })
	}
}

func (w *harness) readWhole(v *volume) {
	const step = 256
	p := make([]byte, step*blk.SectorSize)
	for s := uint64(0); s < v.model.Sectors(); s += step {
		n := min(step, v.model.Sectors()-s)
		if err := blk.ReadSectors(w.sim, v.h, p[:n*blk.SectorSize], s); err != nil {
			if !v.faulty {
				w.fail("read %s %d+%d: %v", v.name, s, n, err)
			}
			return
		}
		if !w.right(w.check(v, p[:n*blk.SectorSize], s), "content of %s", v.name) || !w.checkMap(v, s, n) {
			return
		}
	}
}

// ms draws a time of less than n milliseconds.
func ms(r *rand.Rand, n int) time.Duration {
	return time.Duration(r.IntN(n*1000)) * time.Microsecond
}
