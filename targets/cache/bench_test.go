package cache_test

import (
	"testing"
	"time"

	"udm/blk"
	"udm/blk/blktest"
	"udm/blk/memdev"
	"udm/env"
	"udm/internal/invariants"
)

// warm is a cache in the production environment whose first block is in it.
func warm(t testing.TB, table string) *world {
	w := newWorld(t, table)
	for name, d := range w.disks {
		w.disks[name] = memdev.New(d.Limits().Size)
	}
	w.must(w.start(env.Real()))
	w.write(0, bs, 1, 0)
	w.flush()
	t.Cleanup(w.close)
	return w
}

// hit makes a function that reads or writes 4 KiB of the block that is in the cache.
func hit(w *world, op blk.Op) func() {
	b, done := &blk.Bio{}, make(chan bool, 1)
	end := func(*blk.Bio) { done <- true }
	p := blktest.Pattern(8, 8, 2)
	return func() {
		b.Reset()
		b.Op, b.Sector, b.End = op, 8, end
		b.SetData(p)
		w.dev.Submit(b)
		<-done
	}
}

// TestHitsAllocateNothing: reads and writes of what is in the cache.
func TestHitsAllocateNothing(t *testing.T) {
	w := warm(t, tables["writeback"])
	for _, op := range []blk.Op{blk.Read, blk.Write} {
		before := testing.AllocsPerRun(2000, hit(w, op))
		if before > 0 && !invariants.Enabled {
			t.Errorf("%v: %v allocations", op, before)
		}
	}
}

func BenchmarkHit(b *testing.B) {
	for _, op := range []blk.Op{blk.Read, blk.Write} {
		b.Run(op.String(), func(b *testing.B) {
			w := warm(b, tables["writeback"])
			do := hit(w, op)
			b.SetBytes(4096)
			b.ReportAllocs()
			for b.Loop() {
				do()
			}
		})
	}
}

func BenchmarkMiss(b *testing.B) {
	w := newWorld(b, tables["writeback"])
	w.must(w.start(env.Real()))
	b.Cleanup(w.close)
	do := hit(w, blk.Write)
	b.SetBytes(4096)
	b.ReportAllocs()
	for b.Loop() {
		do()
	}
}

// slow is a disk that takes a time for each request, one after the other.
type slow struct {
	blk.Device
	sim  *env.Sim
	time time.Duration
	free time.Duration
}

func (s *slow) Submit(b *blk.Bio) {
	now := s.sim.Now()
	s.free = max(s.free, now) + s.time
	s.sim.AfterFunc(s.free-now, func() { s.Device.Submit(b) })
}

func (s *slow) Close() error { return nil }

// TestHotSet: reads of a hot set before a slow disk are nearly as fast as from the fast
// one once the cache is warm.
func TestHotSet(t *testing.T) {
	w := newWorld(t, tables["writeback"])
	sim := env.NewStepped()
	const fastTime, slowTime = 100 * time.Microsecond, 2 * time.Millisecond
	w.wrap = func(name string, d blk.Device) blk.Device {
		switch name {
		case "b":
			return &slow{Device: d, sim: sim, time: fastTime}
		case "c":
			return &slow{Device: d, sim: sim, time: slowTime}
		}
		return d
	}
	w.must(w.start(sim))
	defer w.close()
	const reads = 2000
	round := func() time.Duration {
		begin := sim.Now()
		for i := range uint64(reads) {
			w.must(w.read(i%4*3*bs+i%8*8, 8, false))
		}
		return sim.Now() - begin
	}
	cold, warmed := round(), round()
	if best := reads * fastTime; float64(best) < 0.9*float64(warmed) || cold <= warmed {
		t.Errorf("%v at first, %v when warm, %v at best", cold, warmed, best)
	}
}
