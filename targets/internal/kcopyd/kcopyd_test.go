package kcopyd

import (
	"bytes"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"udm/blk"
	"udm/blk/blktest"
	"udm/blk/memdev"
	"udm/blk/nulldev"
	"udm/env"
	"udm/internal/invariants"
)

func envs() map[string]env.Env {
	return map[string]env.Env{"real": env.Real(), "stepped": env.NewStepped(), "sim": env.NewSim(7)}
}

// run starts j and waits for its Done.
func run(e env.Env, start func(*Job), j *Job) *Job {
	var mu sync.Mutex
	done, w := false, e.NewWait()
	j.Done = func(*Job) {
		mu.Lock()
		done = true
		mu.Unlock()
		w.Wake()
	}
	start(j)
	w.Until(func() bool { mu.Lock(); defer mu.Unlock(); return done })
	return j
}

func content(t *testing.T, d blk.Device, sector, sectors uint64) []byte {
	t.Helper()
	p := make([]byte, sectors*512)
	if err := blk.ReadSectors(env.Real(), d, p, sector); err != nil {
		t.Fatal(err)
	}
	return p
}

func source(t *testing.T, sectors uint64, opts ...memdev.Option) *memdev.Device {
	t.Helper()
	d := memdev.New(sectors, opts...)
	if err := blk.WriteSectors(env.Real(), d, blktest.Pattern(0, sectors, 5), 0, 0); err != nil {
		t.Fatal(err)
	}
	return d
}

func small(l *blk.Limits) { l.MaxSectors, l.MaxWriteZeroes = 3, 5 }

func TestCopyToSeveralDestinationsInSegments(t *testing.T) {
	for name, e := range envs() {
		for _, n := range []uint64{0, 1, 7, 8, 64, 65, 1000} {
			for dests := 1; dests <= MaxDests; dests += 7 {
				t.Run(fmt.Sprint(name, n, dests), func(t *testing.T) {
					c := New(e, Options{SubJob: 16})
					defer c.Close()
					j := &Job{From: Place{Open(source(t, 2000, memdev.Tune(small))), 3}, Sectors: n}
					var to []*memdev.Device
					for i := range dests {
						d := memdev.New(2000, memdev.Tune(small))
						to = append(to, d)
						j.To = append(j.To, Place{Open(d), uint64(10 * i)})
					}
					if run(e, c.Copy, j).Failed() {
						t.Fatal("failed")
					}
					want := append(blktest.Pattern(3, n, 5), make([]byte, 512)...)
					for i, d := range to {
						if !bytes.Equal(content(t, d, uint64(10*i), n+1), want) {
							t.Fatalf("destination %d differs", i)
						}
					}
				})
			}
		}
	}
}

func TestZeroWithAndWithoutWriteZeroes(t *testing.T) {
	for name, e := range envs() {
		for _, most := range []uint64{0, 5, blk.NoLimit} {
			t.Run(fmt.Sprint(name, most), func(t *testing.T) {
				c := New(e, Options{SubJob: 256})
				defer c.Close()
				d := source(t, 2000, memdev.Tune(func(l *blk.Limits) { l.MaxWriteZeroes = most }))
				j := &Job{Sectors: 1500}
				j.SetTo(Place{Open(d), 100})
				if run(e, c.Zero, j).Failed() {
					t.Fatal("failed")
				}
				want := blktest.Pattern(0, 2000, 5)
				clear(want[100*512 : 1600*512])
				if !bytes.Equal(content(t, d, 0, 2000), want) {
					t.Fatal("wrong content")
				}
			})
		}
	}
}

// refusing is a disk that offers write-zeroes and refuses them.
type refusing struct {
	*memdev.Device
	n int
}

func (d *refusing) Submit(b *blk.Bio) {
	if b.Op == blk.WriteZeroes {
		d.n++
		b.Complete(blk.NotSupported)
		return
	}
	d.Device.Submit(b)
}

// Where write-zeroes are refused after all, zeroes are written as data, to all destinations
// of the job, and nothing else is tried on that device again.
func TestRefusedWriteZeroes(t *testing.T) {
	for name, e := range envs() {
		t.Run(name, func(t *testing.T) {
			c := New(e, Options{SubJob: 256})
			defer c.Close()
			disks := []*memdev.Device{source(t, 2000), source(t, 2000)}
			far := &refusing{Device: disks[1]}
			to := []Place{{Open(disks[0]), 100}, {Open(far), 100}}
			for range 2 {
				j := &Job{Sectors: 1500, To: to}
				if run(e, c.Zero, j).Failed() {
					t.Fatal("failed")
				}
			}
			want := blktest.Pattern(0, 2000, 5)
			clear(want[100*512 : 1600*512])
			for _, d := range disks {
				if !bytes.Equal(content(t, d, 0, 2000), want) {
					t.Fatal("wrong content")
				}
			}
			if far.n != 1 {
				t.Errorf("asked %d times", far.n)
			}
		})
	}
}

// gates is a copy from gate 0 to the others, shut.
func gates(t *testing.T, e env.Env, n int) ([]*blktest.Gate, *Job) {
	gs := []*blktest.Gate{blktest.NewGate(e, source(t, 256))}
	j := &Job{From: Place{Open(gs[0]), 0}, Sectors: 8}
	for range n {
		g := blktest.NewGate(e, memdev.New(256))
		gs = append(gs, g)
		j.To = append(j.To, Place{Open(g), 0})
	}
	return gs, j
}

func TestErrorsNameTheSide(t *testing.T) {
	e := env.NewStepped()
	for _, ignore := range []bool{false, true} {
		c := New(e, Options{})
		gs, j := gates(t, e, 3)
		done := 0
		j.IgnoreErrors, j.Done = ignore, func(*Job) { done++ }
		c.Copy(j)
		gs[0].Fail(0, blk.IOErr)
		if !ignore {
			if e.Run(); done != 1 || !j.ReadFailed || j.WriteFailed != 0 || len(gs[1].Held()) != 0 {
				t.Fatalf("done %d, %+v", done, j.ReadFailed)
			}
			c.Copy(j)
			gs[0].Release(1)
		}
		gs[2].Fail(0, blk.NoSpace)
		gs[3].Release(0)
		gs[1].Release(0)
		e.Run()
		if j.ReadFailed != ignore || j.WriteFailed != 0b010 {
			t.Fatalf("read failed %v, write failed %b", j.ReadFailed, j.WriteFailed)
		}
		c.Close()
	}
}

func TestAnErrorStopsALongJob(t *testing.T) {
	e := env.NewStepped()
	c := New(e, Options{SubJob: 1})
	gs, j := gates(t, e, 1)
	j.Sectors = 100
	done := 0
	j.Done = func(*Job) { done++ }
	c.Copy(j)
	gs[0].Open()
	if len(gs[1].Held()) != splitCount {
		t.Fatalf("%d segments at a time", len(gs[1].Held()))
	}
	gs[1].Fail(0, blk.IOErr)
	gs[1].Open()
	e.Run()
	if done != 1 || !j.Failed() || len(gs[1].Submitted()) != splitCount {
		t.Fatalf("done %d, %d writes", done, len(gs[1].Submitted()))
	}
	c.Close()
}

func TestMemoryIsBoundedAndServedInOrder(t *testing.T) {
	e := env.NewStepped()
	c := New(e, Options{SubJob: 8, Memory: 2 * 4096})
	gs, _ := gates(t, e, 1)
	jobs := make([]Job, 50)
	var order []int
	for i := range jobs {
		j := &jobs[i]
		j.From, j.Sectors = Place{Open(gs[0]), uint64(i)}, 8
		j.SetTo(Place{Open(gs[1]), uint64(i)})
		j.Done = func(*Job) { order = append(order, i) }
		c.Copy(j)
	}
	for range jobs {
		if n := len(gs[0].Held()) + len(gs[1].Held()); n > 2 {
			t.Fatalf("%d I/Os hold memory for two", n)
		}
		gs[0].ReleaseAll()
		gs[1].ReleaseAll()
	}
	c.Close()
	if len(order) != 50 || !slices.IsSorted(order) {
		t.Fatalf("order %v", order)
	}
}

func TestManyWaitingJobsDoNotNest(t *testing.T) {
	e := env.Real()
	c := New(e, Options{SubJob: 8, Memory: 4096})
	src := blktest.NewGate(e, nulldev.New(1<<30))
	dst := Open(nulldev.New(1 << 30))
	const n = 200_000
	jobs, left := make([]Job, n), n
	for i := range jobs {
		jobs[i].From, jobs[i].Sectors, jobs[i].Done = Place{Open(src), 0}, 8, func(*Job) { left-- }
		jobs[i].SetTo(Place{dst, 0})
		c.Copy(&jobs[i])
	}
	src.Shut()
	for src.ReleaseAll() > 0 {
		if left < n-3 {
			src.Open()
		}
	}
	c.Close()
	if left != 0 {
		t.Fatalf("%d jobs left", left)
	}
}

func TestPreparedCallbacksTakeTheirTurn(t *testing.T) {
	for _, owner := range []bool{false, true} {
		e := env.NewStepped()
		var o Options
		if owner {
			o.Queue = e.NewQueue("owner")
		}
		c := New(e, o)
		var order []string
		running := false
		add := func(j *Job) {
			if running {
				t.Error("two callbacks at a time")
			}
			running = true
			order = append(order, j.Private.(string))
			running = false
		}
		gs, a := gates(t, e, 1)
		cb, last := &Job{Private: "callback", Done: add}, &Job{Private: "last", Done: add}
		a.Private = "copy"
		a.Done = func(j *Job) {
			add(j)
			running = true
			c.Prepare(last)
			c.Fire(last) // from within a callback: runs after it
			running = false
		}
		c.Prepare(cb)
		c.Copy(a)
		gs[0].Open()
		gs[1].Open()
		c.Fire(cb)
		e.Run()
		if want := []string{"copy", "last", "callback"}; !owner && !slices.Equal(order, want) {
			t.Fatalf("order %v, want %v", order, want)
		}
		if want := []string{"copy", "callback", "last"}; owner && !slices.Equal(order, want) {
			t.Fatalf("order %v, want %v", order, want)
		}
		c.Close()
	}
}

func TestCloseWaitsForAPreparedCallback(t *testing.T) {
	e := env.NewStepped()
	c := New(e, Options{})
	j := &Job{Done: func(*Job) {}}
	c.Prepare(j)
	closed := false
	e.Go("closer", func() { c.Close(); closed = true })
	if e.Run(); closed {
		t.Fatal("closed with a callback outstanding")
	}
	c.Fire(j)
	if e.Run(); !closed {
		t.Fatal("not closed")
	}
}

func TestCloseIsWokenByTheLastCallback(t *testing.T) {
	c := New(env.Real(), Options{})
	j := &Job{Done: func(*Job) {}}
	c.Prepare(j)
	closed := make(chan bool)
	go func() { c.Close(); close(closed) }()
	for !c.closing.Load() {
		runtime.Gosched()
	}
	c.Fire(j)
	<-closed
}

func TestThrottleSpreadsCopiesOverTime(t *testing.T) {
	e := env.NewStepped()
	percent := uint32(50)
	th := NewThrottle(e, func() uint32 { return percent })
	c := New(e, Options{SubJob: 8, Throttle: th})
	slow := &slowDev{Device: memdev.New(1 << 16), e: e, d: 10 * time.Millisecond}
	j := &Job{From: Place{Open(slow), 0}, Sectors: 8 * 400}
	j.SetTo(Place{Open(memdev.New(1 << 16)), 0})
	start := e.Now()
	run(e, c.Copy, j)
	took := e.Now() - start
	percent = 100
	start = e.Now()
	run(e, c.Copy, j)
	free := e.Now() - start
	if took < free*3/2 || took > free*4 {
		t.Fatalf("%v at half speed, %v at full", took, free)
	}
	c.Close()
}

// slowDev takes its time for each bio.
type slowDev struct {
	blk.Device
	e *env.Sim
	d time.Duration
}

func (s *slowDev) Submit(b *blk.Bio) { s.e.AfterFunc(s.d, func() { s.Device.Submit(b) }) }

func TestManyClientsOfMemoryRace(t *testing.T) {
	blktest.Leaks(t)
	e := env.Real()
	c := New(e, Options{SubJob: 16, Memory: 4 * 8192})
	src := Open(source(t, 4096))
	dst := memdev.New(4096)
	to := Open(dst)
	var wg sync.WaitGroup
	inside, sum := 0, 0 // guarded by Done being called one at a time
	for w := range uint64(8) {
		wg.Go(func() {
			jobs := make([]Job, 100)
			for i := range jobs {
				j := &jobs[i]
				at := w*512 + uint64(i*5)
				j.From, j.Sectors = Place{src, at}, 5
				if i%7 == 0 {
					j.Sectors = 0
				}
				j.SetTo(Place{to, at})
				j.Done = func(*Job) {
					inside++
					if inside != 1 {
						t.Error("two callbacks at a time")
					}
					sum++
					inside--
				}
				c.Copy(j)
			}
		})
	}
	wg.Wait()
	c.Close()
	if sum != 800 {
		t.Fatalf("%d callbacks", sum)
	}
	if err := blktest.Check(content(t, dst, 5, 30), 5, 5); err != nil {
		t.Fatal(err)
	}
}

func TestFailEach(t *testing.T) {
	n := blktest.FailEach(t, func(t *testing.T, f *blktest.Failer) {
		e := env.NewStepped()
		c := New(e, Options{SubJob: 8})
		j := &Job{From: Place{Open(f.Wrap(source(t, 64))), 0}, Sectors: 64}
		j.To = []Place{{Open(f.Wrap(memdev.New(64))), 0}, {Open(f.Wrap(memdev.New(64))), 0}}
		if run(e, c.Copy, j).Failed() != f.Failed() {
			t.Error("failure not reported")
		}
		if run(e, c.Zero, j).ReadFailed {
			t.Error("a zeroing has no source")
		}
		c.Close()
	})
	if n != 8*3+2 {
		t.Fatalf("%d I/Os", n)
	}
}

func TestNoAllocationPerJob(t *testing.T) {
	c := New(env.Real(), Options{})
	defer c.Close()
	d := Open(nulldev.New(1 << 20))
	j := &Job{From: Place{d, 0}, Sectors: 8, Done: func(*Job) {}}
	j.SetTo(Place{d, 8})
	// Under the race detector a sync.Pool drops things on purpose.
	if n := testing.AllocsPerRun(1000, func() { c.Copy(j) }); n > 0 && !invariants.Enabled {
		t.Fatalf("%v allocations", n)
	}
}

func BenchmarkSmallCopies(b *testing.B) {
	c := New(env.Real(), Options{})
	d := Open(nulldev.New(1 << 20))
	j := &Job{From: Place{d, 0}, Sectors: 8, Done: func(*Job) {}}
	j.SetTo(Place{d, 8})
	b.ReportAllocs()
	for b.Loop() {
		c.Copy(j)
	}
	c.Close()
}

func BenchmarkLargeCopy(b *testing.B) {
	const n = 128 << 20 / 512
	src, dst := memdev.New(n), memdev.New(n)
	for s := uint64(0); s < n; s += 2048 {
		_ = blk.WriteSectors(env.Real(), src, blktest.Pattern(s, 2048, 1), s, 0)
	}
	c := New(env.Real(), Options{})
	j := &Job{From: Place{Open(src), 0}, Sectors: n}
	j.SetTo(Place{Open(dst), 0})
	b.SetBytes(n * 512)
	for b.Loop() {
		run(env.Real(), c.Copy, j)
	}
	c.Close()
}
