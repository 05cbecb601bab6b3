package thinmeta_test

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"udm/blk"
	"udm/blk/memdev"
	"udm/env"
	"udm/targets/thin/internal/metatest"
	"udm/targets/thin/thinmeta"
)

// watched calls seen before each bio.
type watched struct {
	blk.Device
	seen func()
}

func (w *watched) Submit(b *blk.Bio) {
	w.seen()
	w.Device.Submit(b)
}

// grown is metadata on a plain disk, with the largest number of blocks in the cache at
// any read or write.
type grown struct {
	*thinmeta.Metadata
	disk *watched
	most int
}

func newGrown(blocks uint64) *grown {
	return &grown{disk: &watched{Device: memdev.New(blocks * 8)}}
}

func (g *grown) open(blockSize uint32, cache int) {
	g.disk.seen = func() {}
	g.Metadata = must(thinmeta.Open(env.Real(), g.disk, thinmeta.Options{DataBlockSize: blockSize, Format: true, CacheBytes: cache}))
	g.disk.seen = func() { g.most = max(g.most, g.Cached()) }
}

// TestPebibyte: a pool of 1 PiB in blocks of 1 MiB grows from 6 TiB, provisions, and
// is opened again without more memory than the cache may have.
func TestPebibyte(t *testing.T) {
	blocks, cache := uint64(1<<30), 64<<20
	if testing.Short() {
		blocks, cache = blocks/8, cache/4
	}
	g := newGrown(1 << 17)
	g.open(2048, cache)
	ok(t, g.ResizeData(6<<20))
	ok(t, g.Commit())
	ok(t, g.CreateThin(1))
	rng := rand.New(rand.NewPCG(*metatest.Seed, 31))
	provision := func() {
		th := must(g.OpenThin(1))
		defer th.Close()
		for range metatest.Scaled(10000) {
			ok(t, th.Insert(rng.Uint64N(blocks), must(g.AllocDataBlock())))
		}
	}
	provision()
	ok(t, g.ResizeData(blocks))
	ok(t, g.Commit())
	provision()
	ok(t, g.Close())
	g.open(2048, cache)
	if g.DataBlocks() != blocks {
		t.Errorf("%d data blocks", g.DataBlocks())
	}
	provision()
	ok(t, g.Commit())
	if limit := cache / 4096; g.most < limit/2 || g.most > limit+limit/4 {
		t.Errorf("%d blocks were cached, the bound is %d", g.most, limit)
	}
}

// BenchmarkGrow grows a data device of 64 KiB blocks from 6 TiB and reports how much is
// cached meanwhile.
func BenchmarkGrow(b *testing.B) {
	const perTiB = uint64(1) << 24
	for _, tib := range []uint64{12, 25, 50} {
		b.Run(fmt.Sprint("to", tib, "TiB"), func(b *testing.B) {
			most := 0
			for b.Loop() {
				b.StopTimer()
				g := newGrown(1 << 17)
				g.open(128, 0)
				ok(b, g.ResizeData(6*perTiB))
				ok(b, g.Commit())
				b.StartTimer()
				ok(b, g.ResizeData(tib*perTiB))
				ok(b, g.Commit())
				most = max(most, g.most)
			}
			b.ReportMetric(float64(most)/256, "cached-MiB")
		})
	}
}
