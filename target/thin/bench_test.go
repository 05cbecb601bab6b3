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

// bench is a pool in the production environment, whose metadata are in memory.
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

// fill writes 4 KiB to every block, many at a time, and reads all twice, so that
// the cache has grown.
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
