package sim

import (
	"context"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"udm/blk"
	"udm/ctl"
	uvolume "udm/volume"
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
		switch what {
		case "clone":
			op = o.clone(to, on)
		case "copy out":
			op = o.copyOut(w, on, to)
		case "copy in":
			op = o.copyIn(w, on)
		case "reset", "remove":
			op = o.batch(w, what, []string{on})
		default:
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

// copyOut copies what an object holds into a new file.
func (o *objects) copyOut(w *harness, on, to string) *operation {
	o.rest(w, o.all[on])
	return &operation{"copy out " + on, func(ctx context.Context) error {
		return o.srv.CopyOut(ctx, ctl.ObjectFile{Name: on, File: to})
	}, func(map[string]uvolume.Object) bool { return w.files.names[to] != nil }, func() {
		p := make([]byte, o.size*blk.SectorSize)
		w.right(blk.ReadSectors(w.sim, w.files.names[to].disk.mem, p, 0), "read %s", to)
		w.right(o.all[on].model.Check(p, 0), "content of %s", to)
	}}
}

// copyIn copies the image over an object. What has begun goes on until it is done.
func (o *objects) copyIn(w *harness, to string) *operation {
	o.rest(w, o.all[to])
	var err error
	return &operation{"copy into " + to, func(ctx context.Context) error {
		err = o.srv.CopyIn(ctx, ctl.ObjectFile{Name: to, File: imagePath})
		return err
	}, func(map[string]uvolume.Object) bool {
		return err == nil || strings.Contains(err.Error(), "will be retried")
	}, func() {
		o.all[to].model = o.base.Clone()
	}}
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
	{"copy out", "b", "/var/lib/f.img"}, {"copy in", "b", ""}, {"copy in", "c", ""}, {"remove", "b", ""}, {"remove", "d", ""}, {"remove", "e", ""},
}
