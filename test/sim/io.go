package sim

import (
	"fmt"
	"math/rand/v2"
	"slices"

	"udm/blk"
	"udm/blk/blktest"
)

// io submits one random bio to v.
func (w *harness) io(r *rand.Rand, v *volume) {
	s := w.place(r, v)
	k := r.IntN(100)
	seed := r.Uint64() | 1
	if s.sectors == 0 || v.gone || len(v.inFlight) >= maxInFlight {
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
		if wide := w.blocks(r, v); w.hard && wide.sectors > 0 {
			b.Sector, b.Sectors = wide.sector, wide.sectors
		}
		w.change(v, b, 0)
	case k < 88:
		b.Op, b.Flags = blk.WriteZeroes, fua
		w.change(v, b, 0)
	default:
		b.Op, b.Sector, b.Sectors = blk.Flush, 0, 0
		w.flushBio(v, b)
	}
}

// place draws a range that overlaps with nothing in flight. The result is empty if the
// range drawn does.
func (w *harness) place(r *rand.Rand, v *volume) span {
	size := v.model.Sectors()
	s := span{r.Uint64N(size), 1 + r.Uint64N(maxSectors)}
	if r.IntN(3) == 0 { // often whole small blocks
		s.sector, s.sectors = s.sector&^7, 8*(1+r.Uint64N(4))
	}
	s.sectors = min(s.sectors, size-s.sector)
	if v.touched(s) {
		return span{}
	}
	return s
}

// touched reports whether s overlaps with something in flight.
func (v *volume) touched(s span) bool {
	return slices.ContainsFunc(v.inFlight, func(r *request) bool {
		return s.sector < r.sector+r.sectors && r.sector < s.sector+s.sectors
	})
}

// blocks is place for ranges of whole blocks.
func (w *harness) blocks(r *rand.Rand, v *volume) span {
	block := max(1, uint64(v.h.Limits().DiscardGranularity)/blk.SectorSize)
	count := v.model.Sectors() / block
	if count == 0 {
		return span{}
	}
	first := r.Uint64N(count)
	s := span{first * block, (1 + r.Uint64N(count-first)) * block}
	if v.touched(s) {
		return span{}
	}
	return s
}

// chop cuts p into buffers of random sizes.
func chop(r *rand.Rand, p []byte) (bufs [][]byte) {
	for len(p) > 0 {
		n := min(len(p), 1+r.IntN(5000))
		bufs, p = append(bufs, p[:n:n]), p[n:]
	}
	return bufs
}

// submit sends b and calls done when it has ended.
func (w *harness) submit(v *volume, b *blk.Bio, done func(blk.Status)) {
	text := fmt.Sprintf("%s %v", v.name, b)
	r := &request{span{b.Sector, b.Sectors}, b.Flags&blk.Barrier != 0, text}
	v.inFlight = append(v.inFlight, r)
	w.note("%s", text)
	b.End = func(b *blk.Bio) {
		w.ended(v, r)
		w.note("%s: %v", text, b.Status())
		if b.Status() != blk.OK && !v.faulty && !(b.Status() == blk.NoSpace && w.mayLack(v)) {
			w.fail("%s: %v", text, b.Status())
		}
		done(b.Status())
	}
	v.h.Submit(b)
}

// ended removes r from the bios of v in flight. It checks that r has not overtaken a
// barrier, nor as a barrier another bio: they are in the order of submission.
func (w *harness) ended(v *volume, r *request) {
	i := slices.Index(v.inFlight, r)
	for _, older := range v.inFlight[:i] {
		if r.barrier || older.barrier {
			w.fail("%s ended before %s", r.text, older.text)
		}
	}
	v.inFlight = slices.Delete(v.inFlight, i, i+1)
}

func (w *harness) read(v *volume, b *blk.Bio) {
	w.stats.reads++
	p := make([]byte, b.Sectors*blk.SectorSize)
	b.SetData(p)
	sector := b.Sector
	w.submit(v, b, func(st blk.Status) {
		if st == blk.OK {
			w.right(w.check(v, p, sector), "read %s", v.name)
		}
	})
}

// witness is a scenario that observes each bio that changes a volume, and its end.
type witness interface {
	submitted(*harness, *blk.Bio) func(blk.Status)
}

// change submits a write, discard or write-zeroes. Seed 0 stands for zeroes.
func (w *harness) change(v *volume, b *blk.Bio, seed uint64) {
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
	tell := func(blk.Status) {}
	if sc, ok := w.sc.(witness); ok {
		tell = sc.submitted(w, b)
	}
	w.submit(v, b, func(st blk.Status) {
		if flush && st == blk.OK {
			m.FlushEnd(token)
		}
		m.End(op, st, fua)
		tell(st)
	})
}

func (w *harness) flushBio(v *volume, b *blk.Bio) {
	m := v.model
	token := m.FlushBegin()
	w.submit(v, b, func(st blk.Status) {
		if st == blk.OK {
			m.FlushEnd(token)
		}
	})
}
