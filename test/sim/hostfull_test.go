package sim

import (
	"math/rand/v2"
	"testing"
	"time"
)

// TestOperationsOnAFullHost lets the host be full after each page that an operation
// takes, of the daemon's files, of stores, pools and images, and gives it space half a
// minute later. It happens whole, then or
// later, or not at all.
func TestOperationsOnAFullHost(t *testing.T) {
	for _, x := range fullOperations {
		t.Run(x.what+" "+x.on, func(t *testing.T) {
			n := 0
			for left := 0; left == 0; n++ {
				var w *harness
				if w, left = operateOn(uint64(n), n, x.what, x.on, x.to); len(w.errs) > 0 {
					t.Fatalf("%d pages: %s", n, w.report())
				}
			}
			t.Logf("%d pages", n-1)
		})
	}
}

// operateOn carries out one operation with so many pages, and tells how many were left.
func operateOn(seed uint64, pages int, what, on, to string) (w *harness, left int) {
	w = &harness{seed: seed, rng: rand.New(rand.NewPCG(seed, 1)), host: newHost(rand.New(rand.NewPCG(seed, 1)))}
	defer func() {
		if r := recover(); r != nil {
			w.fail("%v", r)
		}
	}()
	o := newObjects(w.rng).(*objects)
	o.fails = false
	w.sc = o
	o.prepare(w)
	w.boot()
	w.readAll()
	w.use(20)
	w.task(func() {
		var op *operation
		if what == "clone" {
			op = o.clone(to, on)
		} else {
			op = o.operation(w, what, on, to)
		}
		w.host.filled, w.host.free = true, pages
		w.sim.AfterFunc(30*time.Second, func() {
			left = w.host.free
			w.host.empty()
		})
		o.carryOut(w, op)
		if w.host.filled {
			left = w.host.free
			w.host.empty()
		}
	})
	if len(w.errs) == 0 {
		w.use(20)
		w.readAll()
		w.stop()
	}
	return w, left
}

// use is n bios to objects, some of them still under way when it returns.
func (w *harness) use(n int) {
	w.task(func() {
		for range n {
			w.ops++
			r := rand.New(rand.NewPCG(w.seed, uint64(w.ops)<<8))
			w.io(r, w.vols[r.IntN(len(w.vols))])
		}
	})
}

// fullOperations are operations on the objects that there are at first: on what, and
// to which new name or file.
var fullOperations = []struct{ what, on, to string }{
	{"clone", "", "f"}, {"clone", "p", "f"}, {"snapshot", "a", "f"}, {"snapshot", "b", "f"}, {"snapshot", "c", "f"},
	{"reset", "b", ""}, {"reset", "c", ""}, {"rollback", "d", ""}, {"rollback", "e", ""}, {"rename", "b", "f"}, {"rename", "c", "f"},
	{"flatten", "b", "/var/lib/f.img"}, {"flatten", "c", "/var/lib/f.img"}, {"commit", "b", "/var/lib/f.img"}, {"commit", "c", "/var/lib/f.img"},
	{"remove", "b", ""}, {"remove", "d", ""}, {"remove", "e", ""},
}
