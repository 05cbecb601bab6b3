package all_test

import (
	"flag"
	"math/rand/v2"
	"testing"
	"time"

	"udm/blk"
	"udm/blk/blktest"
	"udm/blk/checkdev"
	"udm/dm"
	"udm/env"
)

var (
	seed   = flag.Uint64("seed", 0, "the one stack to run; 0: -stacks new ones")
	stacks = flag.Int("stacks", 6, "how many random stacks to run")
	ops    = flag.Int("ops", 1500, "operations on each stack")
)

// TestRandomStacks runs random I/O on random stacks of targets, whose disks
// answer in any order, while devices are suspended, resumed and loaded again,
// and compares with a model. One seed is one history.
func TestRandomStacks(t *testing.T) {
	if *seed != 0 {
		runStack(t, *seed)
		return
	}
	early := 0
	for n := range uint64(*stacks) {
		s := uint64(time.Now().UnixNano()) + n
		early += runStack(t, s)
		if t.Failed() {
			t.Fatalf("go test -run TestRandomStacks -seed %d -ops %d", s, *ops)
		}
	}
	if early < *stacks**ops/40 {
		t.Errorf("only %d bios ended while the histories ran", early)
	}
}

// history is one run.
type history struct {
	*testing.T
	rng   *rand.Rand
	stack *stack
	top   blk.Device // checked, as at the edge of a stack
	model *blktest.Model
	area  uint64      // sectors that are used
	busy  [][2]uint64 // ranges in flight
	seed  uint64      // of the last write
	done  int         // bios that have ended
	holes int         // that were seen in allocation maps
}

// runStack runs the history of a seed and returns how many bios ended while it ran.
func runStack(t *testing.T, seed uint64) int {
	h := &history{T: t, rng: rand.New(rand.NewPCG(seed, 2)), area: 300}
	h.stack = newStack(t, h.rng, env.NewSim(seed))
	top := h.stack.devices[h.stack.build(3, h.area)]
	open, err := top.Open(true)
	if err != nil {
		t.Fatal(err)
	}
	h.top, h.model = checkdev.New(open, checkdev.Options{}), blktest.NewModel(h.area)
	for range *ops {
		h.step()
	}
	early := h.done
	h.stack.settle()
	if len(h.busy) != 0 {
		t.Errorf("%d bios have not ended", len(h.busy))
	}
	h.submit(blk.Read, 0, 0, h.area)
	h.stack.settle()
	h.extents()
	if err := h.top.Close(); err != nil {
		t.Error(err)
	}
	if err := h.stack.control.Close(); err != nil {
		t.Error(err)
	}
	t.Logf("%d holes seen", h.holes)
	if t.Failed() {
		t.Logf("seed %d:\n%s", seed, h.stack.tables())
	}
	return early
}

func (h *history) step() {
	switch k := h.rng.IntN(100); {
	case k < 50:
		h.io()
	case k < 90:
		h.stack.answer()
	case k < 94:
		h.stack.sim.Advance(time.Duration(h.rng.IntN(2000)) * time.Microsecond)
	case k < 96:
		h.stack.disturb()
	case k < 98:
		h.extents()
	default:
		for range h.rng.IntN(20) {
			h.stack.sim.Step()
		}
	}
}

// io submits a random bio that overlaps none in flight.
func (h *history) io() {
	sector := h.rng.Uint64N(h.area)
	sectors := 1 + h.rng.Uint64N(min(40, h.area-sector))
	for _, b := range h.busy {
		if sector < b[0]+b[1] && b[0] < sector+sectors {
			return
		}
	}
	var flags blk.Flags
	op := []blk.Op{blk.Read, blk.Read, blk.Write, blk.Write, blk.Write, blk.Flush, blk.Discard, blk.WriteZeroes}[h.rng.IntN(8)]
	switch {
	case op == blk.Discard && h.top.Limits().MaxDiscard == 0:
		op = blk.Read
	case op == blk.Flush:
		sector, sectors = 0, 0
	case op == blk.Write:
		flags = []blk.Flags{0, 0, 0, blk.FUA, blk.Preflush, blk.FUA | blk.Preflush, blk.Barrier}[h.rng.IntN(7)]
	}
	h.submit(op, flags, sector, sectors)
}

// extents compares the allocation map with the model: holes are zeroes.
func (h *history) extents() {
	for at := uint64(0); at < h.area; {
		list, err := h.top.(blk.ExtentsDevice).Extents(at, h.area-at)
		if err == nil {
			err = h.model.CheckExtents(list)
		}
		if err != nil || blk.SumExtents(list) == 0 {
			h.Errorf("extents from %d on: %v, %v", at, list, err)
			return
		}
		at += blk.SumExtents(list)
		h.holes += holes(list)
	}
}

func holes(list []blk.Extent) (n int) {
	for _, e := range list {
		if !e.Data {
			n++
		}
	}
	return n
}

func (h *history) submit(op blk.Op, flags blk.Flags, sector, sectors uint64) {
	b := &blk.Bio{Op: op, Flags: flags, Sector: sector, Sectors: sectors}
	h.seed++
	var p []byte
	if op.HasData() {
		p = blktest.Pattern(sector, sectors, h.seed)
		b.SetData(p)
	}
	var o blktest.Op
	switch op {
	case blk.Write:
		o = h.model.Begin(sector, sectors, h.seed)
	case blk.WriteZeroes:
		o = h.model.Begin(sector, sectors, 0)
	case blk.Discard:
		o = h.model.BeginAny(sector, sectors)
	}
	place := [2]uint64{sector, sectors}
	h.busy = append(h.busy, place)
	b.End = func(b *blk.Bio) {
		h.ended(place)
		switch st := b.Status(); {
		case st != blk.OK:
			h.Errorf("%v %d+%d: %v", op, sector, sectors, st)
		case op == blk.Read:
			if err := h.model.Check(p, sector); err != nil {
				h.Errorf("read %d+%d: %v", sector, sectors, err)
			}
		case op != blk.Flush:
			h.model.End(o, st, false)
		}
	}
	h.top.Submit(b)
}

func (h *history) ended(place [2]uint64) {
	h.done++
	for i, b := range h.busy {
		if b == place {
			h.busy = append(h.busy[:i], h.busy[i+1:]...)
			return
		}
	}
	h.Errorf("a bio at %v ended twice", place)
}

var _ dm.Opener = (*stack)(nil)
