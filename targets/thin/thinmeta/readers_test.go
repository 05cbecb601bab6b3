package thinmeta_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"udm/env"
	"udm/targets/thin/internal/metatest"
	"udm/targets/thin/thinmeta"
)

// TestReaders runs lookups while the owner changes everything: each result must be a
// mapping that the block has had.
func TestReaders(t *testing.T) {
	const blocks = 600
	rounds := uint32(metatest.Scaled(24))
	p := metatest.New(t, 4096, 200000, 0)
	p.CreateThin(1)
	th := p.Thin(1)
	defer th.Close()
	// Until the first Abort data blocks only rise: no lower one may be found.
	var floor [blocks]atomic.Uint64
	for k := range uint64(blocks) {
		ok(t, p.Insert(th, k*1000))
		floor[k].Store(p.Now.Devs[1][k*1000])
	}
	var stop atomic.Bool
	var wg sync.WaitGroup
	var found atomic.Int64
	for r := range 3 {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(r), 1))
			for !stop.Load() {
				k := rng.Uint64N(blocks)
				least := floor[k].Load()
				m, err := th.TryFind(k * 1000)
				switch {
				case err == nil && m.Block < least && floor[k].Load() >= least:
					t.Errorf("block %d is at %d, was at %d before", k, m.Block, least)
					return
				case err == nil:
					found.Add(1)
				case err != syscall.EAGAIN:
					t.Errorf("block %d: %v", k, err)
					return
				}
			}
		})
	}
	rng := rand.New(rand.NewPCG(9, 9))
	for i := range rounds {
		p.CreateSnap(100+i, 1)
		for range 200 {
			k := rng.Uint64N(blocks)
			ok(t, p.Insert(th, k*1000))
			if i <= rounds/2 {
				floor[k].Store(p.Now.Devs[1][k*1000])
			}
			// Others come and go between, so that nodes split and merge.
			ok(t, p.Insert(th, rng.Uint64N(blocks)*1000+1+rng.Uint64N(999)))
			if gone := rng.Uint64N(blocks); i%2 == 0 {
				ok(t, th.RemoveRange(gone*1000+1, gone*1000+1000))
				maps.DeleteFunc(p.Now.Devs[1], func(k, _ uint64) bool { return k/1000 == gone && k%1000 != 0 })
			}
		}
		for before := found.Load(); found.Load() == before && !t.Failed(); {
			runtime.Gosched() // or one processor would never come to the readers
		}
		p.Commit()
		if i > 3 {
			p.Delete(100 + i - 3)
		}
		if i >= rounds/2 && i%3 == 0 {
			for k := range floor {
				floor[k].Store(0)
			}
			ok(t, p.M.Abort())
			p.Now = p.Old.Clone()
		}
	}
	stop.Store(true)
	wg.Wait()
	if found.Load() == 0 {
		t.Error("no reader found anything")
	}
	t.Logf("%d look-ups", found.Load())
}

func BenchmarkTryFind(b *testing.B) {
	for _, n := range []uint64{1000, 1 << 20} {
		b.Run(fmt.Sprint(n, "mappings"), func(b *testing.B) {
			_, th := benchThin(b, n)
			b.ReportAllocs()
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				rng := rand.New(rand.NewPCG(rand.Uint64(), 1))
				for pb.Next() {
					if _, err := th.TryFind(rng.Uint64N(n)); err != nil {
						b.Error(err)
						return
					}
				}
			})
		})
	}
}

func benchThin(b *testing.B, n uint64) (*thinmeta.Metadata, *thinmeta.Thin) {
	m := must(thinmeta.Open(env.Real(), metatest.Disk(1<<15), thinmeta.Options{DataBlockSize: 128, Format: true}))
	ok(b, m.ResizeData(n+1<<20))
	ok(b, m.CreateThin(1))
	th := must(m.OpenThin(1))
	for k := range n {
		ok(b, th.Insert(k, must(m.AllocDataBlock())))
	}
	ok(b, m.Commit())
	return m, th
}

func BenchmarkInsert(b *testing.B) {
	m, th := benchThin(b, 0)
	rng := rand.New(rand.NewPCG(1, 1))
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		data, err := m.AllocDataBlock()
		if err == syscall.ENOSPC {
			b.Fatal("pool too small")
		}
		ok(b, err)
		ok(b, th.Insert(rng.Uint64N(1<<18), data))
		if i%1000 == 999 {
			ok(b, m.Commit())
		}
	}
}

func BenchmarkSnapshot(b *testing.B) {
	m, _ := benchThin(b, 100000)
	for i := uint32(2); b.Loop(); i++ {
		ok(b, m.CreateSnap(i, 1))
		ok(b, m.Commit())
		ok(b, m.DeleteThin(i))
	}
}

// TestReadersFallBehind checks which changes readers may not see yet, and until when.
func TestReadersFallBehind(t *testing.T) {
	p := metatest.New(t, 4096, 2000, 1)
	p.CreateThin(1)
	th := p.Thin(1)
	defer th.Close()
	ok(t, p.Insert(th, 5))
	finds := func(k uint64, want error) {
		t.Helper()
		if m, err := th.TryFind(k); err != want || err == nil && m.Block != p.Now.Devs[1][k] {
			t.Errorf("block %d: %v, %v, want %v", k, m, err, want)
		}
	}
	finds(5, syscall.EAGAIN)
	finds(6, syscall.EAGAIN) // it could be mapped by now
	p.M.Show()
	finds(5, nil)
	finds(6, syscall.ENODATA)
	p.M.Batch(func() { ok(t, p.Insert(th, 6)) })
	finds(5, nil)
	finds(6, syscall.EAGAIN)
	p.M.Batch(func() { ok(t, p.Insert(th, 5)) })
	finds(5, nil) // another data block than before: shown at once
	finds(6, nil)
	ok(t, p.Insert(th, 7))
	p.Commit()
	finds(7, nil)
	ok(t, p.Insert(th, 8))
	finds(8, syscall.EAGAIN)
	ok(t, th.RemoveRange(5, 6))
	delete(p.Now.Devs[1], 5)
	finds(5, syscall.ENODATA)
	finds(8, nil)
	ok(t, p.Insert(th, 9))
	ok(t, p.M.Abort())
	p.Now = p.Old.Clone()
	_ = must(th.Find(7)) // nothing is cached
	finds(9, syscall.ENODATA)
	finds(7, nil)
}

// TestReadersDoNotCrowdTheCache: changes that readers do not see yet take only a part of
// the cache.
func TestReadersDoNotCrowdTheCache(t *testing.T) {
	p := metatest.New(t, 4096, 60000, 1)
	p.CreateThin(1)
	th := p.Thin(1)
	defer th.Close()
	shown := 0
	for k := range uint64(50000) {
		ok(t, p.Insert(th, k*7919%50000))
		if _, err := th.TryFind(50001); err == syscall.ENODATA {
			shown++
		}
	}
	if most := 64 * 3; shown == 0 || p.M.Cached() > most {
		t.Errorf("%d blocks are cached, want at most %d; everything was shown %d times", p.M.Cached(), most, shown)
	}
}
