package sim

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"udm/blk"
	"udm/blk/blktest"
)

// limits of one history
const (
	maxRounds   = 4
	maxRoundOps = 60
	maxFlying   = 6  // bios of one volume in flight
	maxSectors  = 40 // of one bio
)

// live runs a whole history. A panic (a deadlock, a broken invariant) counts as
// its finding.
func live(seed uint64, k kind, skip func(int) bool) (w *world) {
	w = &world{seed: seed, rng: rand.New(rand.NewPCG(seed, 1)), skip: skip, faulty: k.errors, injects: k.errors}
	defer func() {
		if r := recover(); r != nil {
			w.fail("%v", r)
		}
	}()
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
	errors bool // disks fail now and then
}

// round does n operations. After it, some are still under way.
func (w *world) round(n int) {
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

func (w *world) operation(r *rand.Rand) {
	w.stats.ops++
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

// beside starts a control operation unless one is under way.
func (w *world) beside(r *rand.Rand) {
	if w.busy {
		return
	}
	w.busy = true
	w.sim.Go("control", func() {
		w.sc.control(w, r)
		w.busy = false
	})
}

// io submits one random bio to v.
func (w *world) io(r *rand.Rand, v *volume) {
	s := w.place(r, v)
	k := r.IntN(100)
	seed := r.Uint64() | 1
	if s.sectors == 0 || v.gone || len(v.flying) >= maxFlying {
		return
	}
	b := &blk.Bio{Sector: s.sector, Sectors: s.sectors}
	fua := blk.Flags(0)
	if r.IntN(8) == 0 {
		fua = blk.FUA
	}
	switch lim := v.h.Limits(); {
	case k < 35:
		w.read(v, b)
	case k < 78:
		b.Op, b.Flags = blk.Write, fua
		if r.IntN(12) == 0 {
			b.Flags |= blk.Preflush
		}
		if r.IntN(20) == 0 {
			b.Flags |= blk.Barrier
		}
		b.SetBufs(chop(r, blktest.Pattern(s.sector, s.sectors, seed)), s.sectors)
		w.change(v, b, seed)
	case k < 84 && lim.MaxDiscard > 0:
		b.Op = blk.Discard
		w.change(v, b, 0)
	case k < 88:
		b.Op, b.Flags = blk.WriteZeroes, fua
		w.change(v, b, 0)
	default:
		b.Op, b.Sector, b.Sectors = blk.Flush, 0, 0
		w.flushBio(v, b)
	}
}

// place draws a range that nothing in flight touches; no sectors if there is
// none at hand.
func (w *world) place(r *rand.Rand, v *volume) span {
	size := v.model.Sectors()
	s := span{r.Uint64N(size), 1 + r.Uint64N(maxSectors)}
	if r.IntN(3) == 0 { // often whole small blocks
		s.sector, s.sectors = s.sector&^7, 8*(1+r.Uint64N(4))
	}
	s.sectors = min(s.sectors, size-s.sector)
	for _, f := range v.flying {
		if s.sector < f.sector+f.sectors && f.sector < s.sector+s.sectors {
			return span{}
		}
	}
	return s
}

// chop cuts p into buffers of odd sizes.
func chop(r *rand.Rand, p []byte) (bufs [][]byte) {
	for len(p) > 0 {
		n := min(len(p), 1+r.IntN(5000))
		bufs, p = append(bufs, p[:n:n]), p[n:]
	}
	return bufs
}

// fly sends b and calls done when it has ended.
func (w *world) fly(v *volume, b *blk.Bio, done func(blk.Status)) {
	text := fmt.Sprintf("%s %v", v.name, b)
	f := &flight{span{b.Sector, b.Sectors}, b.Flags&blk.Barrier != 0, text}
	v.flying = append(v.flying, f)
	w.note("%s", text)
	b.End = func(b *blk.Bio) {
		w.land(v, f)
		w.note("%s: %v", text, b.Status())
		if b.Status() != blk.OK && !v.faulty {
			w.fail("%s: %v", text, b.Status())
		}
		done(b.Status())
	}
	v.h.Submit(b)
}

// land takes f from v's flights, which are in the order of submission: nothing
// passes a barrier.
func (w *world) land(v *volume, f *flight) {
	i := slices.Index(v.flying, f)
	for _, older := range v.flying[:i] {
		if f.barrier || older.barrier {
			w.fail("%s ended before %s", f.text, older.text)
		}
	}
	v.flying = slices.Delete(v.flying, i, i+1)
}

func (w *world) read(v *volume, b *blk.Bio) {
	w.stats.reads++
	p := make([]byte, b.Sectors*blk.SectorSize)
	b.SetData(p)
	sector := b.Sector
	w.fly(v, b, func(st blk.Status) {
		if st == blk.OK {
			w.right(w.check(v, p, sector), "read %s", v.name)
		}
	})
}

// change writes, discards or zeroes; seed 0 is zeroes.
func (w *world) change(v *volume, b *blk.Bio, seed uint64) {
	w.stats.writes++
	m, fua := v.model, b.Flags&blk.FUA != 0
	token := m.FlushBegin()
	flush := b.Flags&blk.Preflush != 0
	var op blktest.Op
	if b.Op == blk.Discard {
		op = m.BeginAny(b.Sector, b.Sectors)
	} else {
		op = m.Begin(b.Sector, b.Sectors, seed)
	}
	w.fly(v, b, func(st blk.Status) {
		if flush && st == blk.OK {
			m.FlushEnd(token)
		}
		m.End(op, st, fua)
	})
}

func (w *world) flushBio(v *volume, b *blk.Bio) {
	m := v.model
	token := m.FlushBegin()
	w.fly(v, b, func(st blk.Status) {
		if st == blk.OK {
			m.FlushEnd(token)
		}
	})
}

// readAll compares every volume whole.
func (w *world) readAll() {
	w.quiet()
	for _, v := range append([]*volume(nil), w.vols...) {
		w.task(func() { w.readWhole(v) })
	}
}

func (w *world) readWhole(v *volume) {
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
		if !w.right(w.check(v, p[:n*blk.SectorSize], s), "content of %s", v.name) {
			return
		}
	}
}

// ms draws a time of up to n milliseconds.
func ms(r *rand.Rand, n int) time.Duration {
	return time.Duration(r.IntN(n*1000)) * time.Microsecond
}
