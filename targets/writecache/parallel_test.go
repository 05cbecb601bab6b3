package writecache_test

import (
	"context"
	"sync"
	"testing"

	"udm/blk"
	"udm/blk/blktest"
	"udm/blk/memdev"
	"udm/env"
	"udm/internal/invariants"
)

// TestThreads has each of several threads write, read and discard blocks of its own, more
// than the cache has, while it is suspended, resumed, written back and given other
// settings.
func TestThreads(t *testing.T) {
	const threads = 4
	rounds := 2000
	if testing.Short() {
		rounds = 300
	}
	busy := tableOf("6 autocommit_blocks 2 high_watermark 20 low_watermark 10")
	w := newWorld(t, busy)
	w.must(w.start(env.Real()))
	var wg sync.WaitGroup
	for id := range uint64(threads) {
		wg.Go(func() {
			const part = originSize / bs / threads * bs
			for i := range uint64(rounds) {
				at, n := id*part+i*7%(part/bs-4)*bs, bs*(1+i%4)
				seed := 1 + id + i*threads
				flags := blk.FUA * blk.Flags(i%9/8)
				p := blktest.Pattern(at, n, seed)
				if err := blk.WriteSectors(w.env, w.h, p, at, flags); err != nil {
					t.Errorf("write %d+%d: %v", at, n, err)
				}
				for range 2 {
					if err := blk.ReadSectors(w.env, w.h, p, at); err != nil {
						t.Errorf("read %d+%d: %v", at, n, err)
					} else if err := blktest.Check(p, at, seed); err != nil {
						t.Error(err)
					}
				}
				if i%31 == 0 {
					if err := blk.DiscardSectors(w.env, w.h, at, n); err != nil {
						t.Error(err)
					}
				}
				if i%16 == 0 {
					if err := blk.FlushDevice(w.env, w.h); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	wg.Go(func() {
		for i := range rounds / 20 {
			if i%3 == 0 {
				_ = w.message("flush")
			}
			if err := w.load([]string{tables["lazy"], busy}[i%2]); err != nil {
				t.Error(err)
			}
			if err := w.dev.Suspend(context.Background(), i%2 == 0); err != nil {
				t.Error(err)
			}
			if err := w.dev.Resume(context.Background(), false); err != nil {
				t.Error(err)
			}
		}
	})
	wg.Wait()
	w.close()
	w.check(env.Real())
}

// warm is a writecache in the production environment with one block in it.
func warm(t testing.TB) *world {
	w := newWorld(t, tables["lazy"])
	for name, d := range w.disks {
		w.disks[name] = memdev.New(d.Limits().Size)
	}
	w.must(w.start(env.Real()))
	w.write(0, bs, 1, 0)
	w.flush()
	t.Cleanup(w.close)
	return w
}

// hit makes a function that reads or writes a block that is in the cache, or reads one that
// is not.
func hit(w *world, op blk.Op, sector uint64) func() {
	b, done := &blk.Bio{}, make(chan bool, 1)
	end := func(*blk.Bio) { done <- true }
	p := blktest.Pattern(0, bs, 2)
	return func() {
		b.Reset()
		b.Op, b.Sector, b.End = op, sector, end
		b.SetData(p)
		w.dev.Submit(b)
		<-done
	}
}

func TestHitsAllocateNothing(t *testing.T) {
	w := warm(t)
	for _, x := range []struct {
		op     blk.Op
		sector uint64
	}{{blk.Read, 0}, {blk.Write, 0}, {blk.Read, 100}} {
		if n := testing.AllocsPerRun(2000, hit(w, x.op, x.sector)); n > 0 && !invariants.Enabled {
			t.Errorf("%v of sector %d: %v allocations", x.op, x.sector, n)
		}
	}
}

func BenchmarkHit(b *testing.B) {
	for _, op := range []blk.Op{blk.Read, blk.Write} {
		b.Run(op.String(), func(b *testing.B) {
			do := hit(warm(b), op, 0)
			b.SetBytes(bs * blk.SectorSize)
			b.ReportAllocs()
			for b.Loop() {
				do()
			}
		})
	}
}
