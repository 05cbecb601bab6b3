package dm

import (
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"udm/blk"
	"udm/env"
)

// Bios submitted after a resume overtake those that wait for the worker, unless they
// overlap with one of them.
func TestOnlyOverlapsWaitBehindOlderBios(t *testing.T) {
	r := newRig(t)
	d := r.two()
	r.suspendTask(d, false)
	old := []*io{r.write(d, 0, 8), r.submit(d, blk.Read, 0, 24, 8)}
	r.must(d.Resume(ctx, false)) // and the worker has not run yet
	send := func(op blk.Op, sector uint64) {
		x := &io{}
		x.Op, x.Sector = op, sector
		x.SetData(make([]byte, 8*blk.SectorSize))
		x.End = func(*blk.Bio) {}
		d.Submit(&x.Bio)
	}
	send(blk.Write, 4)
	send(blk.Write, 8) // behind the one before, which waits
	send(blk.Write, 16)
	send(blk.Read, 24) // reads do not disturb each other
	send(blk.Write, 24)
	if n := len(r.gate("g0").Held()); n != 0 {
		t.Fatalf("%d overlapping writes went before the older one", n)
	}
	if got := r.gate("g1").Trace(); got != "write 0+8\nread 8+8\n" {
		t.Fatalf("before the worker: %q", got)
	}
	r.held("g0", "write 0+8", "write 4+8", "write 8+8")
	r.held("g1", "write 0+8", "read 8+8", "read 8+8", "write 8+8")
	r.gate("g0").ReleaseAll()
	r.gate("g1").ReleaseAll()
	r.ended(old[0], blk.OK)
	r.ended(old[1], blk.OK)
}

// The index never misses an overlap and is empty when nothing waits.
func TestIndexOfWaitingBios(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	bio := func() *blk.Bio {
		b := &blk.Bio{Op: blk.Op(rng.IntN(5)), Sector: rng.Uint64N(1 << 12), Sectors: rng.Uint64N(1 << rng.IntN(10))}
		if b.Op == blk.Flush {
			b.Sectors = 0
		}
		return b
	}
	var w waiting
	var model []*blk.Bio
	alone := 0
	for range 20000 {
		switch n := bio(); rng.IntN(3) {
		case 0:
			if len(model) < 12 {
				w.push(n)
				model = append(model, n)
			}
		case 1:
			if b := w.pop(); b != nil {
				if b != model[0] {
					t.Fatal("out of order")
				}
				model = model[1:]
			}
		case 2:
			touches := slices.ContainsFunc(model, func(b *blk.Bio) bool {
				return b.Sectors > 0 && n.Sectors > 0 && (b.Op.IsWrite() || n.Op.IsWrite()) && b.Sector < n.EndSector() && n.Sector < b.EndSector()
			})
			got := w.overlaps(n)
			if touches && !got {
				t.Fatalf("%v is said not to overlap with any of %v", n, model)
			}
			if !got && n.Sectors > 0 && len(model) > 0 {
				alone++
			}
		}
	}
	for w.pop() != nil {
	}
	if len(w.blocks) != 0 || w.sizes != [65]int{} || w.barriers != 0 {
		t.Fatalf("left in the index: %v", w.blocks)
	}
	if alone < 500 {
		t.Fatalf("only %d bios overlapped with nothing", alone)
	}
}

// With a full queue in which each completion submits another bio, the fast path returns
// as soon as the bios that waited have gone.
func TestFastPathComesBack(t *testing.T) {
	const depth = 16 * 512
	s := env.NewStepped()
	c := NewControl(s, anyNull{}, shiftType)
	d := running(t, c, "d")
	rng := rand.New(rand.NewPCG(3, 4))
	data := make([]byte, 8*blk.SectorSize)
	ends, nested := 0, 0
	back := -1
	submit := func(b *blk.Bio) {
		b.Rearm()
		b.Op, b.Sector = blk.Write, rng.Uint64N(1<<17)*8
		b.SetData(data)
		d.Submit(b)
	}
	end := func(b *blk.Bio) {
		ends++
		if back < 0 && d.fast.Load() != nil {
			back = ends
		}
		if nested == 0 && back < 0 && ends < 20*depth {
			nested++
			submit(b)
			nested--
		}
	}
	noError(t, d.Suspend(ctx, false))
	for range depth {
		submit(&blk.Bio{End: end})
	}
	noError(t, d.Resume(ctx, false))
	s.Run()
	for range 2 {
		submit(&blk.Bio{End: end})
	}
	if back < 0 || back > 3*depth {
		t.Fatalf("the fast path came back after %d of %d bios", back, ends)
	}
	noError(t, c.Close())
}

// The same with real threads, over many suspends.
func TestFastPathComesBackForManySubmitters(t *testing.T) {
	const submitters, depth, most = 16, 512, 1 << 22
	c := NewControl(env.Real(), anyNull{}, shiftType)
	d := running(t, c, "d")
	var stop atomic.Bool
	var ends atomic.Int64
	var wg sync.WaitGroup
	for i := range submitters {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(i), 5))
			data := make([]byte, 8*blk.SectorSize)
			free := make(chan *blk.Bio, depth)
			for range depth {
				free <- &blk.Bio{}
			}
			for !stop.Load() {
				b := <-free
				b.Reset()
				b.Op, b.Sector = blk.Write, rng.Uint64N(1<<17)*8
				b.SetData(data)
				b.End = func(b *blk.Bio) { ends.Add(1); free <- b }
				d.Submit(b)
			}
			for range depth {
				<-free
			}
		})
	}
	for range 5 {
		noError(t, d.Suspend(ctx, false))
		from := ends.Load()
		noError(t, d.Resume(ctx, false))
		for d.fast.Load() == nil {
			if ends.Load() > from+most {
				t.Fatalf("%d bios have ended, and all go through the worker", most)
			}
			runtime.Gosched()
		}
	}
	stop.Store(true)
	wg.Wait()
	noError(t, c.Close())
}

func noError(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// running is a device over anyNull's disk.
func running(t *testing.T, c *Control, name string) *Device {
	t.Helper()
	d, err := c.Create(name, "", -1)
	noError(t, err)
	noError(t, d.Load([]Spec{{0, 1 << 20, "shift", "null"}}, Mode{Write: true}))
	noError(t, d.Resume(ctx, false))
	return d
}
