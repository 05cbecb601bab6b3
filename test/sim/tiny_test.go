package sim

import (
	"flag"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"udm/blk"
	"udm/blk/memdev"
)

var picks = flag.Int("picks", 3, "disks that are drawn at each moment of a tiny stack")

var exhaustive = flag.Bool("exhaustive", false, "all sequences of up to three operations on tiny devices, instead of two")

// step is one operation on a tiny stack. It runs as a task.
type step struct {
	name string
	do   func(w *world, seed uint64)
}

// tiny is a stack of few blocks, and what can be done to it.
type tiny struct {
	name  string
	make  func() scenario
	begin func(w *world) // what was done before the first step; no power cuts in it
	steps []step
	clone func(scenario) scenario // with models that the power was cut from
}

// TestTinyStacks does all short sequences of steps to each tiny stack. After
// every write and flush that reaches a disk the power is cut: everything that was
// not flushed is lost, nothing is, or a part. Each time the stack is built again,
// read whole and checked.
func TestTinyStacks(t *testing.T) {
	for _, k := range []tiny{tinySnapshot(), tinyMerge(), tinyThin()} {
		t.Run(k.name, func(t *testing.T) {
			longest, sequences, states := 2, 0, 0
			if *exhaustive {
				longest = 3
			}
			for _, seq := range sequencesOf(len(k.steps), longest) {
				for _, fua := range []bool{false, true}[:1+longest/3] {
					n, errs := k.run(seq, fua != (len(seq)%2 == 0))
					if len(errs) > 0 {
						t.Fatalf("%s, crash state %d: %s", k.names(seq), n, strings.Join(errs, "\n"))
					}
					sequences, states = sequences+1, states+n
				}
			}
			t.Logf("%d sequences of up to %d of %d steps, %d crash states", sequences, longest, len(k.steps), states)
		})
	}
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

// run does one sequence and counts the crash states that were checked.
func (k tiny) run(seq []int, fua bool) (states int, errs []string) {
	w := &world{rng: rand.New(rand.NewPCG(1, 1))}
	w.sc = k.make()
	w.sc.prepare(w)
	for _, d := range w.disks {
		d.mem = memdev.New(d.mem.Limits().Size, memdev.Volatile, memdev.Tune(func(l *blk.Limits) { l.FUA, l.NoWait = fua, false }))
		d.slow = 0
	}
	w.boot()
	w.task(func() { k.begin(w) })
	for _, d := range w.disks {
		d.changed = func() {
			for pick := range *picks {
				if len(errs) > 0 {
					return
				}
				states++
				errs = k.restart(w, pick, uint64(states))
			}
		}
	}
	for i, n := range seq {
		w.task(func() { k.steps[n].do(w, uint64(i+1)) })
	}
	w.quiet()
	w.stop()
	return states, append(errs, w.errs...)
}

// restart starts the stack on what a power cut now would leave of w's disks.
func (k tiny) restart(w *world, pick int, seed uint64) []string {
	after := &world{rng: rand.New(rand.NewPCG(2, 2)), sc: k.clone(w.sc)}
	after.stats.cuts = 1
	for _, d := range w.disks {
		var mem *memdev.Device
		switch pick {
		case 0:
			mem = d.mem.CrashCloneNone()
		case 1:
			mem = d.mem.CrashCloneAll()
		default:
			mem = d.mem.CrashClone(seed)
		}
		after.disks = append(after.disks, &disk{name: d.name, mem: mem, rng: after.rng})
	}
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
	return after.errs
}
