package thin

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"

	"udm/blk"
	"udm/blk/memdev"
	"udm/blk/nulldev"
	"udm/dm"
	"udm/env"
)

// bench is a pool in the production environment with its metadata in memory.
type bench struct {
	*testing.B
	control *dm.Control
	meta    *memdev.Device
	data    func() blk.Device
}

func newBench(b *testing.B, data func() blk.Device) *bench {
	r := &bench{B: b, meta: memdev.New(1 << 18), data: data}
	r.control = dm.NewControl(env.Real(), r, PoolType(), Type())
	b.Cleanup(func() {
		if err := r.control.Close(); err != nil {
			b.Error(err)
		}
	})
	return r
}

func (r *bench) Open(name string, _ bool) (blk.Device, dm.Number, error) {
	if name == "m" {
		return r.meta, dm.Number{Major: 7, Minor: 0}, nil
	}
	return r.data(), dm.Number{Major: 7, Minor: 1}, nil
}

func (r *bench) device(name, table string) *dm.Device {
	r.Helper()
	specs, err := dm.ParseTable(table)
	var d *dm.Device
	if err == nil {
		d, err = r.control.Create(name, "", -1)
	}
	if err == nil {
		err = d.Load(specs, dm.Mode{Write: true})
	}
	if err == nil {
		err = d.Resume(context.Background(), false)
	}
	r.must(err)
	return d
}

func (r *bench) must(err error) {
	r.Helper()
	if err != nil {
		r.Fatal(err)
	}
}

func (r *bench) msg(pool *dm.Device, format string, args ...any) {
	r.Helper()
	_, err := pool.Message(0, fmt.Sprintf(format, args...))
	r.must(err)
}

const benchBlocks = 65536

// mapped is a volume whose 65,536 blocks are all mapped, over a null disk.
func mapped(b *testing.B) *dm.Device {
	r := newBench(b, func() blk.Device { return nulldev.New(benchBlocks * 2 * bs) })
	pool := r.device("pool", fmt.Sprintf("0 %d thin-pool m d %d 0 1 skip_block_zeroing", benchBlocks*2*bs, bs))
	r.msg(pool, "create_thin 0")
	d := r.device("thin", fmt.Sprintf("0 %d thin /dev/mapper/pool 0", benchBlocks*bs))
	fill(r, d)
	return d
}

// fill writes 4 KiB to every block, many at a time, and reads all twice, so that the
// cache has reached its size.
func fill(r *bench, d *dm.Device) {
	p := make([]byte, 4096)
	e := env.Real()
	for range 3 {
		for blockNr := range uint64(benchBlocks) {
			r.must(blk.WriteSectors(e, d, p, blockNr*bs, 0))
		}
	}
}

func run(d *dm.Device, op blk.Op, seed uint64, more func() bool) {
	rng := rand.New(rand.NewPCG(seed, 1))
	var bio blk.Bio
	bio.SetData(make([]byte, 4096))
	bio.End = func(*blk.Bio) {}
	bio.Op = op
	for more() {
		bio.Rearm()
		bio.Sector = rng.Uint64N(benchBlocks*bs/8) * 8
		d.Submit(&bio)
	}
}

func benchmarkMapped(b *testing.B, op blk.Op) {
	d := mapped(b)
	b.ReportAllocs()
	b.ResetTimer()
	run(d, op, 1, b.Loop)
}

func BenchmarkMappedRead(b *testing.B)  { benchmarkMapped(b, blk.Read) }
func BenchmarkMappedWrite(b *testing.B) { benchmarkMapped(b, blk.Write) }

// BenchmarkMappedWriteParallel is to be run with -cpu 1,2.
func BenchmarkMappedWriteParallel(b *testing.B) {
	d := mapped(b)
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) { run(d, blk.Write, rand.Uint64(), pb.Next) })
}

// flood submits writes of 4 KiB, one to each of the blocks, at most depth at a time.
func flood(b *bench, d *dm.Device, blocks []int, depth int) {
	free := make(chan *blk.Bio, depth)
	for range depth {
		bio := &blk.Bio{}
		bio.SetData(make([]byte, 4096))
		bio.Op = blk.Write
		bio.End = func(bio *blk.Bio) { free <- bio }
		free <- bio
	}
	for _, block := range blocks {
		bio := <-free
		if bio.Status() != blk.OK {
			b.Fatal(bio.Status())
		}
		bio.Rearm()
		bio.Sector = uint64(block) * bs
		d.Submit(bio)
	}
	for range depth {
		<-free
	}
}

// BenchmarkProvision maps a new block for each write, in a row or at random, over
// a null disk: the cost of the pool itself.
func BenchmarkProvision(b *testing.B) {
	for _, order := range []string{"sequential", "random"} {
		for _, zeroing := range []bool{false, true} {
			for _, depth := range []int{1, 64} {
				b.Run(fmt.Sprintf("%s/zeroing=%t/depth=%d", order, zeroing, depth), func(b *testing.B) {
					provision(b, order == "random", zeroing, depth)
				})
			}
		}
	}
}

func provision(b *testing.B, random, zeroing bool, depth int) {
	n := uint64(b.N)
	r := newBench(b, func() blk.Device { return nulldev.New((n + 16) * bs) })
	r.meta = memdev.New(1 << 21)
	table := fmt.Sprintf("0 %d thin-pool m d %d 0", (n+16)*bs, bs)
	if !zeroing {
		table += " 1 skip_block_zeroing"
	}
	pool := r.device("pool", table)
	r.msg(pool, "create_thin 0")
	d := r.device("thin", fmt.Sprintf("0 %d thin /dev/mapper/pool 0", n*bs))
	blocks := all(b.N)
	if random {
		rand.Shuffle(b.N, func(i, j int) { blocks[i], blocks[j] = blocks[j], blocks[i] })
	}
	b.ReportAllocs()
	b.ResetTimer()
	flood(r, d, blocks, depth)
}

// all is the first n blocks.
func all(n int) []int {
	blocks := make([]int, n)
	for i := range blocks {
		blocks[i] = i
	}
	return blocks
}

const copyBlocks = 512 // of 64 KiB

// BenchmarkBreakSharing writes 4 KiB to every block of a volume that has just
// been snapshotted. The bytes counted are those copied.
func BenchmarkBreakSharing(b *testing.B) {
	data := memdev.New(4 * copyBlocks * bs)
	r := newBench(b, func() blk.Device { return data })
	pool := r.device("pool", fmt.Sprintf("0 %d thin-pool m d %d 0", 4*copyBlocks*bs, bs))
	r.msg(pool, "create_thin 0")
	d := r.device("thin", fmt.Sprintf("0 %d thin /dev/mapper/pool 0", copyBlocks*bs))
	flood(r, d, all(copyBlocks), 32)
	b.SetBytes(copyBlocks * bs * blk.SectorSize)
	for b.Loop() {
		b.StopTimer()
		r.msg(pool, "create_snap 1 0")
		b.StartTimer()
		flood(r, d, all(copyBlocks), 32)
		b.StopTimer()
		r.msg(pool, "delete 1")
		b.StartTimer()
	}
}

// BenchmarkPlainCopy is what BenchmarkBreakSharing is compared with: the same
// bytes by reads and writes of a block.
func BenchmarkPlainCopy(b *testing.B) {
	d, p, e := memdev.New(2*copyBlocks*bs), make([]byte, bs*blk.SectorSize), env.Real()
	for i := range uint64(copyBlocks) {
		if err := blk.WriteSectors(e, d, p, i*bs, 0); err != nil {
			b.Fatal(err)
		}
	}
	b.SetBytes(copyBlocks * bs * blk.SectorSize)
	for b.Loop() {
		for i := range uint64(copyBlocks) {
			_ = blk.ReadSectors(e, d, p, i*bs)
			_ = blk.WriteSectors(e, d, p, (copyBlocks+i)*bs, 0)
		}
	}
}

// BenchmarkUncachedRead is BenchmarkMappedRead with the mapping cache kept empty: the
// cost of a working set larger than the cache.
func BenchmarkUncachedRead(b *testing.B) {
	d := mapped(b)
	th := d.Target(0).Mapper().(*thin)
	th.pool.published.caches.most = 0
	th.vol.cache.clear()
	b.ReportAllocs()
	b.ResetTimer()
	run(d, blk.Read, 1, b.Loop)
}
