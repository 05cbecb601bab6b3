package verity_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"sync"
	"testing"

	"udm/blk"
	"udm/blk/memdev"
	"udm/dm"
	"udm/env"
	"udm/internal/invariants"
	"udm/targets/verity"
	"udm/targets/verity/hashtree"
	"udm/targets/verity/veritytools"
)

const benchBlocks = 4096

// memories opens the memory disks of a benchmark: a has the data, b the tree.
type memories map[string]blk.Device

func (m memories) Open(name string, _ bool) (blk.Device, dm.Number, error) {
	return kept{m[name]}, dm.Number{Major: 1, Minor: uint32(name[0])}, nil
}

type kept struct{ blk.Device }

func (kept) Close() error { return nil }

// newRunning returns a running device of benchBlocks blocks in the production environment.
func newRunning(t testing.TB) *dm.Device {
	e := env.Real()
	m := memories{"a": memdev.New(benchBlocks * 8), "b": memdev.New(1 << 12)}
	must := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	must(blk.WriteSectors(e, m["a"], bytes.Repeat([]byte("data"), benchBlocks<<10), 0, 0))
	h := &veritytools.Header{Shape: hashtree.Shape{Version: 1, DataBlock: 4096, HashBlock: 4096, DataBlocks: benchBlocks, Algorithm: "sha256", Salt: make([]byte, 32)}}
	must(h.Check(0, false))
	root, err := veritytools.Create(e, m["a"], m["b"], h)
	must(err)
	c := dm.NewControl(e, m, verity.Type())
	t.Cleanup(func() { must(c.Close()) })
	d, err := c.Create("d", "", -1)
	must(err)
	must(d.Load([]dm.Spec{dm.NewSpec(0, h.Sectors(), h.Line("a", "b", root))}, dm.Mode{}))
	must(d.Resume(context.Background(), false))
	return d
}

// pump reads count bios of size bytes, depth at a time.
func pump(t testing.TB, d *dm.Device, depth, size, count int) {
	free := make(chan *blk.Bio, depth)
	var inFlight sync.WaitGroup
	for range depth {
		bio := &blk.Bio{End: func(bio *blk.Bio) {
			if bio.Status() != blk.OK {
				t.Error(bio.Status())
			}
			free <- bio
			inFlight.Done()
		}}
		bio.SetData(make([]byte, size))
		free <- bio
	}
	for i := range uint64(count) {
		bio := <-free
		bio.Rearm()
		bio.SetData(bio.Bufs[0])
		bio.Sector = i * uint64(size/512) % (benchBlocks * 8)
		inFlight.Add(1)
		d.Submit(bio)
	}
	inFlight.Wait()
}

// BenchmarkVerity reads through sha256 over memory, 16 bios at a time; "bare" is the
// hash alone, on one processor.
func BenchmarkVerity(b *testing.B) {
	for _, kib := range []int{4, 64, 512} {
		b.Run(fmt.Sprintf("%dKiB", kib), func(b *testing.B) {
			d := newRunning(b)
			b.SetBytes(int64(kib << 10))
			b.ReportAllocs()
			b.ResetTimer()
			pump(b, d, 16, kib<<10, b.N)
		})
	}
	b.Run("bare", func(b *testing.B) {
		h, salt, p, sum := sha256.New(), make([]byte, 32), make([]byte, 4096), []byte(nil)
		b.SetBytes(4096)
		for range b.N {
			h.Reset()
			h.Write(salt)
			h.Write(p)
			sum = h.Sum(sum[:0])
		}
	})
}

// TestParallelReads runs several readers in the production environment.
func TestParallelReads(t *testing.T) {
	d := newRunning(t)
	var all sync.WaitGroup
	for i := range 4 {
		all.Go(func() { pump(t, d, 8, 4096<<i, 2000) })
	}
	all.Wait()
}

// TestAllocatesNothing checks that a read whose hash blocks are cached does not allocate.
func TestAllocatesNothing(t *testing.T) {
	d := newRunning(t)
	e := env.Real()
	w := e.NewWait()
	done := false
	bio := &blk.Bio{}
	p := make([]byte, 4096)
	var mu sync.Mutex
	read := func() {
		bio.Rearm()
		bio.Sector = 8
		bio.SetData(p)
		d.Submit(bio)
		w.Until(func() bool { mu.Lock(); defer mu.Unlock(); ok := done; done = false; return ok })
	}
	bio.End = func(*blk.Bio) { mu.Lock(); done = true; mu.Unlock(); w.Wake() }
	for range 100 {
		read()
	}
	if n := testing.AllocsPerRun(1000, read); n > 1 && !invariants.Enabled {
		t.Errorf("%v allocations for a read", n)
	}
}
