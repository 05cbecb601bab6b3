package thin

import (
	"context"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"udm/blk"
	"udm/blk/blktest"
	"udm/env"
	"udm/internal/invariants"
)

// run uses a pool at random: several threads create, snapshot, write, discard and
// delete volumes while the pool is suspended and reloaded now and then. start starts a
// thread.
func (w *busyPool) run(r *rand.Rand, rounds, steps int, start func(name string, fn func())) {
	for id := range 2 {
		_, err := w.create(id, id == 1, nil)
		w.must(err)
	}
	next := 2
	for range rounds {
		var wg waitAll
		wg.init(w.e)
		for _, id := range slices.Sorted(maps.Keys(w.vols)) {
			v := w.vols[id]
			for k := range writers {
				seed := r.Uint64()
				wg.start(start, fmt.Sprintf("writer %d of %d", k, v.id), func() {
					w.use(v, k, steps, rand.New(rand.NewPCG(seed, 1)))
				})
			}
		}
		w.disturb(r, &next)
		wg.wait()
		for _, id := range slices.Sorted(maps.Keys(w.vols)) {
			if len(w.vols) > 3 && r.IntN(2) == 0 {
				w.must(w.remove(w.vols[id]))
			}
		}
	}
}

// disturb changes volumes or the pool while the writers run.
func (w *busyPool) disturb(r *rand.Rand, next *int) {
	var origin *vol
	w.mu.Lock()
	ids := r.Perm(*next)
	for _, id := range ids {
		if v := w.vols[id]; v != nil {
			origin = v
			break
		}
	}
	w.mu.Unlock()
	if origin != nil {
		if _, err := w.create(*next, false, origin); err != nil {
			w.Error(err)
		}
		*next++
	}
	switch r.IntN(3) {
	case 0:
		w.must(w.pool.Suspend(ctx, r.IntN(2) == 0))
		w.must(w.pool.Resume(ctx, false))
	case 1:
		w.must(w.swap(w.pool, poolTable(w.blocks, w.features...)))
	}
}

// waitAll waits for threads of an Env.
type waitAll struct {
	mu   sync.Mutex
	left int // guarded by mu
	w    env.Wait
}

func (a *waitAll) init(e env.Env) { a.w = e.NewWait() }

func (a *waitAll) start(start func(string, func()), name string, fn func()) {
	a.mu.Lock()
	a.left++
	a.mu.Unlock()
	start(name, func() {
		fn()
		a.mu.Lock()
		a.left--
		a.mu.Unlock()
		a.w.Wake()
	})
}

func (a *waitAll) wait() {
	a.w.Until(func() bool {
		a.mu.Lock()
		defer a.mu.Unlock()
		return a.left == 0
	})
}

func TestModelAmongGoroutines(t *testing.T) {
	blktest.Leaks(t)
	steps := 150
	if invariants.Enabled {
		steps = 50
	}
	for seed := range uint64(3) {
		w := newBusyPool(t, env.Real())
		w.features = [][]string{nil, {"no_discard_passdown"}, {"error_if_no_space"}}[seed%3]
		w.must(w.start())
		w.run(rand.New(rand.NewPCG(seed, 0)), 5, steps, func(_ string, fn func()) { go fn() })
		w.stop()
		w.again(t, w.meta, w.data).verify(false, true)
	}
}

// kind varies the pools: every other one runs out of space now and then.
func (w *busyPool) kind(seed uint64) {
	w.features = [][]string{nil, {"no_discard_passdown"}, {"error_if_no_space"}}[seed%3]
	if seed%2 == 1 {
		w.blocks = 26
	}
}

func TestModelInTheSimulator(t *testing.T) {
	for seed := range uint64(*simSeeds) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			sim := env.NewSim(seed)
			w := newBusyPool(t, sim)
			w.kind(seed)
			w.must(w.start())
			w.run(rand.New(rand.NewPCG(seed, 0)), 4, 40, sim.Go)
			w.stop()
			w.again(t, w.meta, w.data).verify(false, true)
		})
	}
}

// tap calls a function before each bio that changes a disk.
type tap struct {
	blk.Device
	before func()
}

func (d *tap) Submit(b *blk.Bio) {
	if b.Op != blk.Read {
		d.before()
	}
	d.Device.Submit(b)
}

func (d *tap) Close() error { return nil }

// TestCrash cuts the power before random writes, flushes and discards of a
// random run, and checks the result.
func TestCrash(t *testing.T) {
	states := 0
	for seed := range uint64(*crashSeeds) {
		states += crashRun(t, seed)
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
	t.Logf("%d states", states)
}

func crashRun(t *testing.T, seed uint64) (states int) {
	rarely := 5
	if invariants.Enabled {
		rarely = 40
	}
	if testing.Short() {
		rarely *= 4
	}
	sim := env.NewSim(seed)
	r := rand.New(rand.NewPCG(seed, 5))
	w := newBusyPool(t, sim)
	w.kind(seed)
	w.wrap = func(_ string, d blk.Device) blk.Device {
		return &tap{d, func() {
			if len(w.vols) > 0 && r.IntN(rarely) == 0 && !t.Failed() {
				states++
				s := r.Uint64()
				after := w.again(t, w.meta.CrashClone(s), w.data.CrashClone(s+1))
				after.verify(true, states%20 == 1)
			}
		}}
	}
	w.must(w.start())
	w.run(rand.New(rand.NewPCG(seed, 0)), 3, 20, sim.Go)
	w.stop()
	return states
}

var (
	ctx        = context.Background()
	simSeeds   = flag.Int("sims", 6, "seeds of TestModelInTheSimulator")
	crashSeeds = flag.Int("crashes", 4, "seeds of TestCrash; each looks at some hundred power cuts")
)
