package sim

import (
	"fmt"
	"hash/maphash"
	"math/rand/v2"
	"slices"
	"time"

	"udm/blk"
	"udm/blk/blktest"
	"udm/dm"
	"udm/targets/era"
	"udm/targets/era/eratools"
)

// eras is a scenario with an era device. Each write that has ended is reported in the era
// in which it was submitted or in a later one, and a block without writes never is:
// while the device runs, after a power cut, and after a stop.
type eras struct {
	block uint64 // sectors
	size  uint64 // sectors of the top
	whole uint64 // sectors of the origin
	model *blktest.Model
	meta  uint64 // sectors
	began bool
	at    uint32   // the running era, as it was known last
	least []uint32 // by block: the era of its last write, at least; 0: none
	most  []uint32 // the era of the last write that was tried, at most
	open  []span   // writes under way
}

// slack is how many eras one control operation may begin.
const slack = 4

func newEras(r *rand.Rand) scenario {
	e := &eras{block: 8 * (1 + r.Uint64N(6)), meta: 8 * (30 + r.Uint64N(60))}
	e.whole = e.block*(4+r.Uint64N(80)) + r.Uint64N(e.block)
	e.size = e.whole - r.Uint64N(e.whole/2)
	return e
}

func (e *eras) blocks() int { return int((e.whole + e.block - 1) / e.block) }

func (e *eras) prepare(w *harness) {
	w.disk("meta", e.meta)
	w.disk("origin", e.whole)
	e.model = blktest.NewModel(e.size)
	e.least, e.most = make([]uint32, e.blocks()), make([]uint32, e.blocks())
}

func (e *eras) start(w *harness) {
	for _, s := range e.open { // the power was cut
		e.tried(s, e.at+slack)
	}
	e.open = nil
	if e.began {
		e.verify(w)
	}
	e.began = true
	w.open(w.device("era", e.table()), e.model)
	e.look(w)
}

func (e *eras) table() string { return fmt.Sprintf("0 %d era meta origin %d", e.size, e.block) }

// look asks for the running era. Nothing else changes the device meanwhile.
func (e *eras) look(w *harness) {
	if d, err := w.c.Name("era"); err == nil {
		if n, err := era.Era(d); err == nil {
			e.at = max(e.at, n)
		}
	}
}

// submitted notes each write, and returns the function to call at its end.
func (e *eras) submitted(w *harness, b *blk.Bio) func(blk.Status) {
	s, at := span{b.Sector, b.Sectors}, e.at
	e.open = append(e.open, s)
	return func(st blk.Status) {
		e.open = slices.DeleteFunc(e.open, func(o span) bool { return o == s })
		latest := e.at
		if w.busy {
			latest += slack
		}
		e.tried(s, latest)
		if st == blk.OK {
			e.each(s, func(b uint64) { e.least[b] = max(e.least[b], at) })
		}
	}
}

func (e *eras) tried(s span, at uint32) {
	e.each(s, func(b uint64) { e.most[b] = max(e.most[b], at) })
}

func (e *eras) each(s span, fn func(block uint64)) {
	for b := s.sector / e.block; b*e.block < s.sector+s.sectors; b++ {
		fn(b)
	}
}

func (e *eras) control(w *harness, r *rand.Rand) {
	v := w.volume("era")
	if v == nil {
		return
	}
	defer e.look(w)
	switch k := r.IntN(12); {
	case k < 5:
		text := []string{"checkpoint", "checkpoint", "take_metadata_snap", "drop_metadata_snap"}[r.IntN(4)]
		_, err := v.dev.Message(0, text)
		w.note("message %s: %v", text, err)
	case k < 7:
		w.pauseSurely(v.dev, r.IntN(2) == 0, r, "origin")
	case k < 8:
		e.grow(w, v, r)
	case k < 9:
		w.sleep(time.Duration(r.IntN(900)) * time.Millisecond)
	default:
		e.ask(w, v.dev, r)
	}
}

// grow loads a table of another size, while nobody uses the device.
func (e *eras) grow(w *harness, v *volume, r *rand.Rand) {
	v.gone = true
	w.sim.NewWait().Until(func() bool { return len(v.inFlight) == 0 })
	old := e.size
	e.size = max(old, 1+r.Uint64N(e.whole))
	w.note("from %d to %d sectors", old, e.size)
	w.loadSurely(v.dev, e.table(), "origin")
	if specs, _, ok := v.dev.Loaded(false); ok && specs[0].Len == old {
		e.size = old
	}
	e.model.Resize(e.size)
	v.gone = false
}

// ask compares what the running device tells with what is known.
func (e *eras) ask(w *harness, d *dm.Device, r *rand.Rand) {
	since := 1 + uint32(r.IntN(int(e.at)+2))
	least := slices.Clone(e.least)
	for at := uint64(0); at < e.size; {
		var list []blk.Extent
		var end uint64
		err := w.trying(func() (err error) {
			list, end, err = era.WrittenSince(d, since, at, e.size-at)
			return err
		})
		if !w.must(err, "written since %d", since) {
			return
		}
		for _, x := range list {
			e.each(span{x.Sector, x.Sectors}, func(b uint64) {
				if !x.Data && least[b] >= since {
					w.fail("block %d was written in era %d, but not since era %d", b, least[b], since)
				}
			})
		}
		at = end
	}
}

// verify compares all of the metadata with what is known.
func (e *eras) verify(w *harness) {
	d, _, err := w.Open("meta", false)
	if !w.right(err, "open meta") {
		return
	}
	r, err := eratools.Check(w.sim, d, false)
	if !w.right(err, "check metadata") || !w.right(r.Err(), "metadata") {
		return
	}
	told := make([]uint32, e.blocks())
	for n := uint32(1); n <= r.Super.Era; n++ {
		err := eratools.WrittenSince(w.sim, d, n, false, func(begin, end uint32) error {
			for b := begin; b < end; b++ {
				told[b] = n
			}
			return nil
		})
		if !w.right(err, "written since %d", n) {
			return
		}
	}
	for b, n := range told {
		if n < e.least[b] || n > e.most[b] {
			w.fail("block %d was written last in era %d to %d, the metadata say %d", b, e.least[b], e.most[b], n)
		}
	}
}

// impatient: nothing in the stack waits for space.
func (e *eras) impatient(*volume) bool { return true }

func (e *eras) digest(h *maphash.Hash) {
	fmt.Fprint(h, e.least, e.most)
	e.model.Digest(h)
}
