package era_test

import (
	"context"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"udm/blk"
	"udm/blk/memdev"
	"udm/dm"
	"udm/env"
	"udm/targets/era"
	"udm/targets/era/eratools"
)

// running makes a device of 64 blocks in the production environment.
func running(t testing.TB, d *disks) *dm.Device {
	t.Helper()
	c := dm.NewControl(env.Real(), d, era.Type())
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	x, err := c.Create("x", "", -1)
	specs, _ := dm.ParseTable("0 1024 era a b 16")
	if err == nil {
		err = x.Load(specs, dm.Mode{Write: true})
	}
	if err == nil {
		err = x.Resume(context.Background(), false)
	}
	if err != nil {
		t.Fatal(err)
	}
	return x
}

// witness notes what the newest answered checkpoint was when each block was written.
type witness struct {
	*memdev.Device
	begun *atomic.Uint32
	least [64]atomic.Uint32
}

func (w *witness) Submit(b *blk.Bio) {
	if b.Op == blk.Write {
		least, now := &w.least[b.Sector/16], w.begun.Load()
		for was := least.Load(); was < now && !least.CompareAndSwap(was, now); was = least.Load() {
		}
	}
	w.Device.Submit(b)
}

// TestCheckpointsAndWriters: what is written after a checkpoint was answered is told of in
// the era that the checkpoint has begun, or a later one, whoever writes meanwhile.
func TestCheckpointsAndWriters(t *testing.T) {
	writers, writes := 4, every(300, 60)
	var begun atomic.Uint32 // the era of the last checkpoint that was answered
	begun.Store(1)
	d := newDisks()
	seen := &witness{Device: d.mems["b"], begun: &begun}
	d.wrap = func(dev blk.Device) blk.Device {
		if dev == d.mems["b"] {
			return seen
		}
		return dev
	}
	x := running(t, d)
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(w), 1))
			for range writes {
				b := rng.Uint64N(64)
				bio := &blk.Bio{Op: blk.Write, Sector: b * 16}
				bio.SetData(make([]byte, 4096))
				if st := blk.Do(env.Real(), x, bio); st != blk.OK {
					t.Error(st)
				}
			}
		})
	}
	var checkpoints sync.WaitGroup
	stop := make(chan struct{})
	checkpoints.Go(func() {
		for n := uint32(2); ; n++ {
			select {
			case <-stop:
				return
			default:
			}
			if _, err := x.Message(0, "checkpoint"); err != nil {
				t.Error(err)
			}
			begun.Store(n)
		}
	})
	wg.Wait()
	close(stop)
	checkpoints.Wait()
	if err := x.Suspend(context.Background(), false); err != nil {
		t.Fatal(err)
	}
	var latest [64]uint32
	for n := uint32(1); n <= begun.Load()+1; n++ {
		ok(t, eratools.WrittenSince(env.Real(), d.mems["a"], n, false, func(begin, end uint32) error {
			for b := begin; b < end; b++ {
				latest[b] = n
			}
			return nil
		}))
	}
	for b := range latest {
		if want := seen.least[b].Load(); latest[b] < want {
			t.Errorf("block %d was written in era %d, the metadata say %d", b, want, latest[b])
		}
	}
	t.Logf("%d checkpoints", begun.Load())
}

// TestCheckpointAwaitsWrites: a checkpoint is answered after the end of a write that had
// seen the era before it.
func TestCheckpointAwaitsWrites(t *testing.T) {
	d := newDisks()
	held := &holder{Device: d.mems["b"]}
	d.wrap = func(dev blk.Device) blk.Device {
		if dev == d.mems["b"] {
			return held
		}
		return dev
	}
	x := running(t, d)
	write := func(end func(*blk.Bio)) {
		bio := &blk.Bio{Op: blk.Write, End: end}
		bio.SetData(make([]byte, 4096))
		x.Submit(bio)
	}
	marked := make(chan bool)
	write(func(*blk.Bio) { close(marked) })
	<-marked
	held.hold.Store(true)
	write(func(*blk.Bio) {})
	var released atomic.Bool
	answered := make(chan bool)
	go func() {
		if _, err := x.Message(0, "checkpoint"); err != nil {
			t.Error(err)
		}
		answered <- released.Load()
	}()
	for { // until the era has begun, which the status waits for as well
		s, err := era.ParseStatus(x.Lines(dm.Info, false, 0)[0].Params)
		if err != nil {
			t.Fatal(err)
		}
		if s.Era == 2 {
			break
		}
	}
	released.Store(true)
	held.release()
	if !<-answered {
		t.Error("the checkpoint was answered while a write was under way")
	}
}

// holder holds writes back.
type holder struct {
	*memdev.Device
	hold atomic.Bool
	mu   sync.Mutex
	bios []*blk.Bio
}

func (h *holder) Submit(b *blk.Bio) {
	if b.Op == blk.Write && h.hold.Load() {
		h.mu.Lock()
		h.bios = append(h.bios, b)
		h.mu.Unlock()
		return
	}
	h.Device.Submit(b)
}

func (h *holder) release() {
	h.hold.Store(false)
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, b := range h.bios {
		h.Device.Submit(b)
	}
}

// BenchmarkMarked is a write to a block that was written in this era.
func BenchmarkMarked(b *testing.B) {
	d := newDisks()
	d.mems["b"] = memdev.New(2048)
	x := running(b, d)
	bio := &blk.Bio{Op: blk.Write}
	bio.SetData(make([]byte, 4096))
	if st := blk.Do(env.Real(), x, bio); st != blk.OK {
		b.Fatal(st)
	}
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		bio := &blk.Bio{Op: blk.Write, End: func(*blk.Bio) {}}
		bio.SetData(make([]byte, 4096))
		for pb.Next() {
			bio.Rearm()
			bio.SetData(bio.Bufs[0])
			bio.Sector = 0
			x.Submit(bio)
		}
	})
}
