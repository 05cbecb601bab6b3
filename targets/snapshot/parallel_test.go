package snapshot

import (
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"udm/blk"
	"udm/blk/blktest"
	"udm/blk/memdev"
	"udm/blk/nulldev"
	"udm/dm"
	"udm/env"
	"udm/internal/invariants"
)

// Each exception gets a chunk of its own, and a store on disk has all of them.
func TestExceptionsSideBySide(t *testing.T) {
	for _, kind := range []string{"N", "P"} {
		for _, sectors := range []uint64{3, 8} {
			for _, what := range []string{"o", "s"} {
				sideBySide(t, kind, what, sectors)
			}
		}
	}
}

func sideBySide(t *testing.T, kind, what string, sectors uint64) {
	chunks, workers := uint64(2048), uint64(4)
	if testing.Short() {
		chunks = 1024
	}
	r := newRig(t, env.Real(), disks{"O": filledWith(t, chunks*8, 1), "C": memdev.New(chunks * 10)})
	r.device("o", chunks*8, "snapshot-origin O")
	s := r.device("s", chunks*8, "snapshot O C "+kind+" 8")
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for c := range chunks {
				at := (c + w*chunks/workers) % chunks * 8
				p := blktest.Pattern(at, sectors, 2)
				if err := blk.WriteSectors(env.Real(), r.dev(what), p, at, 0); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	wantCount(t, r.snap("s"), r.info("s"))
	r.snap("s").mustBeIdle(t)
	if kind == "P" {
		r.remove("s")
		s = r.device("s", chunks*8, "snapshot O C P 8")
	}
	for at := uint64(0); at < chunks*8; at += 8 {
		if what == "s" {
			r.wantData(s, at, sectors, 2)
		} else {
			r.wantData(s, at, 8, 1)
		}
	}
}

func filledWith(t *testing.T, sectors, seed uint64) *memdev.Device {
	d := memdev.New(sectors)
	if err := blk.WriteSectors(env.Real(), d, blktest.Pattern(0, sectors, seed), 0, 0); err != nil {
		t.Fatal(err)
	}
	return d
}

// Bios that were held back are issued one after the other, without recursion.
func TestBiosLetGoDoNotNest(t *testing.T) {
	const n = 500
	for _, dev := range []string{"s", "o"} {
		r := newGated(t, stepped(), 8*n, 8*n)
		r.device("o", 8*n, "snapshot-origin O")
		r.device("s", 8*n, "snapshot O C N 8")
		sn := r.snap("s")
		sn.registry.threshold.Set(0)
		r.shut()
		var ws []*io
		for i := range uint64(n) {
			ws = append(ws, r.write(r.dev(dev), 8*i, 3, 2))
		}
		deepest := 0
		sn.hook = func(p point) {
			if p == pointAllocate {
				deepest = max(deepest, runtime.Callers(0, make([]uintptr, 10*n)))
			}
		}
		r.open()
		r.run()
		for _, w := range ws {
			r.wantEnd(w, blk.OK)
		}
		if deepest == 0 || deepest > 200 {
			t.Fatalf("%d calls deep", deepest)
		}
		sn.mustBeIdle(t)
	}
}

func TestNoAllocationPerException(t *testing.T) {
	const n = 1 << 14
	for _, what := range []string{"o", "s"} {
		for _, sectors := range []uint64{3, 8} {
			r := newRig(t, env.Real(), disks{"O": nulldev.New(8 * n), "C": nulldev.New(8 * n)})
			r.device("o", 8*n, "snapshot-origin O")
			r.device("s", 8*n, "snapshot O C N 8")
			b := &blk.Bio{End: func(*blk.Bio) {}}
			data, at := make([]byte, sectors*512), uint64(0)
			allocs := testing.AllocsPerRun(4096, func() {
				writeNext(r.dev(what), b, data, at)
				at += 8
			})
			// Under the race detector a sync.Pool drops things on purpose.
			if allocs > 0 && !invariants.Enabled {
				t.Fatalf("%s, %d sectors: %v allocations", what, sectors, allocs)
			}
		}
	}
}

func writeNext(d *dm.Device, b *blk.Bio, data []byte, at uint64) {
	b.Rearm()
	b.Op, b.Sector = blk.Write, at
	b.SetData(data)
	d.Submit(b)
}

func TestEachChunkIsHandedOutOnce(t *testing.T) {
	chunks := uint64(1 << 20)
	if testing.Short() {
		chunks = 1 << 17
	}
	for _, kind := range []string{"N", "P"} {
		r := newRig(t, env.Real(), disks{"O": nulldev.New(8 * chunks), "C": nulldev.New(8 * chunks)})
		r.device("s", 8*chunks, "snapshot O C "+kind+" 8")
		st := r.snap("s").body.Load().store
		handOut(t, st, chunks)
		if allocated, _, _ := st.usage(); allocated != 8*chunks {
			t.Errorf("%s: %d sectors are handed out", kind, allocated)
		}
	}
}

// handOut allocates all chunks of a store from several workers.
func handOut(t *testing.T, st store, chunks uint64) {
	owners := make([]atomic.Int32, chunks)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for e := (exception{}); st.prepare(&e, anywhere); {
				owners[e.new].Add(1)
			}
		})
	}
	wg.Wait()
	for c := range owners {
		n, want := owners[c].Load(), int32(1)
		if p, ok := st.(*persistent); ok && (c == 0 || p.isArea(uint64(c))) {
			want = 0
		}
		if n != want {
			t.Fatalf("chunk %d handed out %d times", c, n)
		}
	}
}
