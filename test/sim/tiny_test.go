package sim

import (
	"flag"
	"fmt"
	"hash/maphash"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"udm/blk"
	"udm/blk/memdev"
)

var (
	picks      = flag.Int("picks", 48, "at most so many disks are drawn at each moment of a tiny stack")
	exhaustive = flag.Bool("exhaustive", false, "sequences of up to three operations on tiny stacks, instead of two")
	wanted     = flag.Int("states", 10_000, "crash states of each tiny stack, no two with the same disks")
)

// step is one operation on a tiny stack. It runs as a task.
type step struct {
	name string
	do   func(w *harness, seed uint64)
}

// tiny is a stack of few blocks, with the operations on it.
type tiny struct {
	name  string
	make  func() scenario
	begin func(w *harness) // what was done before the first step; no power cuts in it
	steps []step
	clone func(scenario) scenario // with models that the power was cut from
	slow  bool                    // a crash state takes long: few with -short
}

// scope is how long all sequences are that are tried, and how many crash states there are
// to be at least.
func (k tiny) scope() (longest, states int) {
	switch {
	case k.slow && testing.Short():
		return 1, *wanted / 50
	case testing.Short():
		return 2, *wanted / 4
	case *exhaustive:
		return 3, *wanted
	}
	return 2, *wanted
}

// TestTinyStacks runs all short sequences of steps on each tiny stack, and then random
// longer ones. After every write and flush that reaches a disk the power is cut, with all,
// none or a part of the unflushed data lost. Each time the stack is built again, read as
// a whole and checked.
func TestTinyStacks(t *testing.T) {
	for _, k := range []tiny{tinySnapshot(), tinyMerge(), tinyThin(), tinyEra(), tinyClone(), tinyCache(), tinyWritecache()} {
		t.Run(k.name, func(t *testing.T) {
			y := &states{seen: make(map[uint64]bool), disks: make(map[uint64]bool)}
			longest, most := k.scope()
			if *first == 1 {
				for _, seq := range sequencesOf(len(k.steps), longest) {
					k.try(t, y, seq, false, 1)
					k.try(t, y, seq, true, 1)
				}
				t.Logf("all sequences of up to %d of %d steps: %v", longest, len(k.steps), y)
			}
			round := *first
			for ; len(y.disks) < most; round++ {
				r := rand.New(rand.NewPCG(round, 3))
				seq := make([]int, 3+r.IntN(longestOf(round)))
				for i := range seq {
					seq[i] = r.IntN(len(k.steps))
				}
				before := len(y.disks)
				k.try(t, y, seq, r.IntN(2) == 0, round)
				if len(y.disks)/100_000 > before/100_000 {
					t.Logf("round %d: %v", round, y)
				}
			}
			t.Logf("and rounds %d to %d of longer ones: %v", *first, round-1, y)
		})
	}
}

// longestOf bounds the random sequences of a round. Later rounds have longer ones, since the
// states that few steps lead to have all been seen at some time.
func longestOf(round uint64) int { return int(min(8+round/256, 100)) }

// try runs one sequence. round seeds the order of events.
func (k tiny) try(t *testing.T, y *states, seq []int, fua bool, round uint64) {
	if errs := k.run(y, seq, fua, round); len(errs) > 0 {
		t.Fatalf("%s, fua=%v, round %d, state %d: %s", k.names(seq), fua, round, y.drawn, strings.Join(errs, "\n"))
	}
}

// states counts crash states. The same disks are started again if other contents are legal
// there, but count once.
type states struct {
	drawn int
	disks map[uint64]bool // by what is on the disks
	seen  map[uint64]bool // and by what may be there
	page  []byte          // of digest
}

func (y *states) String() string {
	return fmt.Sprintf("%d crash states, no two with the same disks, %d starts of %d drawn", len(y.disks), len(y.seen), y.drawn)
}

// sequencesOf lists all sequences of 1 to longest numbers below n.
func sequencesOf(n, longest int) (all [][]int) {
	last := [][]int{nil}
	for range longest {
		var next [][]int
		for _, s := range last {
			for i := range n {
				next = append(next, append(slices.Clone(s), i))
			}
		}
		all, last = append(all, next...), next
	}
	return all
}

func (k tiny) names(seq []int) string {
	var names []string
	for _, i := range seq {
		names = append(names, k.steps[i].name)
	}
	return strings.Join(names, ", ")
}

// run runs one sequence and returns what it has found.
func (k tiny) run(y *states, seq []int, fua bool, round uint64) (errs []string) {
	w := &harness{rng: rand.New(rand.NewPCG(round, 1))}
	w.sc = k.make()
	w.sc.prepare(w)
	for _, d := range w.disks {
		d.mem = memdev.New(d.mem.Limits().Size, memdev.Volatile, memdev.Tune(func(l *blk.Limits) { l.FUA, l.NoWait = fua, false }))
		d.slow = time.Duration(round-1) % 4 * time.Millisecond
	}
	w.boot()
	defer func() { w.sim.Close() }()
	w.task(func() { k.begin(w) })
	k.cutAlways(w, y, round, &errs)
	for i, n := range seq {
		w.task(func() { k.steps[n].do(w, uint64(i+1)) })
	}
	w.quiet()
	w.stop()
	return append(errs, w.errs...)
}

// cutAlways starts the stack on disks that a power cut could leave, after every change of a
// disk. It draws such disks until two in a row have been seen before.
func (k tiny) cutAlways(w *harness, y *states, round uint64, errs *[]string) {
	for _, d := range w.disks {
		d.changed = func() {
			for pick, old := 0, 0; pick < *picks && old < 2 && len(*errs) == 0; pick++ {
				before := len(y.seen)
				y.drawn++
				*errs = k.restart(w, y, pick, round<<32+uint64(y.drawn))
				if len(y.seen) == before {
					old++
				} else {
					old = 0
				}
			}
		}
	}
}

// restart starts the stack on what a power cut at this moment could leave of w's disks,
// unless that has been seen before.
func (k tiny) restart(w *harness, y *states, pick int, seed uint64) []string {
	after := &harness{rng: rand.New(rand.NewPCG(2, 2)), sc: k.clone(w.sc)}
	after.stats.cuts = 1
	for i, d := range w.disks {
		after.disks = append(after.disks, &disk{name: d.name, mem: remains(d.mem, pick, seed*8+uint64(i)), rng: after.rng})
	}
	disks, state := after.digest(&y.page)
	if y.seen[state] {
		return nil
	}
	y.disks[disks], y.seen[state] = true, true
	func() {
		defer func() {
			if r := recover(); r != nil {
				after.fail("%v", r)
			}
		}()
		after.boot()
		after.readAll()
		after.stop()
		after.task(func() { after.sc.verify(after) })
	}()
	after.sim.Close()
	return after.errs
}

// remains returns what a power cut leaves of a disk. With pick 0 all unflushed data is
// lost, with pick 1 none, else a random part.
func remains(m *memdev.Device, pick int, seed uint64) *memdev.Device {
	switch pick {
	case 0:
		return m.CrashCloneNone()
	case 1:
		return m.CrashCloneAll()
	}
	return m.CrashClone(seed)
}

var digestSeed = maphash.MakeSeed()

// digest returns a hash of the content of the disks, and one of that and of the legal
// content of their volumes.
func (w *harness) digest(page *[]byte) (disks, state uint64) {
	var h maphash.Hash
	h.SetSeed(digestSeed)
	for _, d := range w.disks {
		size := d.mem.Limits().Size
		fmt.Fprintf(&h, "%s %d fua=%v;", d.name, size, d.mem.Limits().FUA)
		extents, _ := d.mem.Extents(0, size)
		for _, x := range extents {
			if x.Data {
				*page = slices.Grow((*page)[:0], int(x.Sectors)*blk.SectorSize)
				p := (*page)[:x.Sectors*blk.SectorSize]
				b := &blk.Bio{Sector: x.Sector, End: func(*blk.Bio) {}}
				b.SetData(p)
				d.mem.Submit(b)
				fmt.Fprintf(&h, "%d:", x.Sector)
				h.Write(p)
			}
		}
	}
	disks = h.Sum64()
	w.sc.(digester).digest(&h)
	return disks, h.Sum64()
}

// digester is a scenario with state of its own that a digest has to include.
type digester interface{ digest(*maphash.Hash) }
