package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"sync/atomic"
	"time"

	"udm/blk"
	"udm/blk/filedev"
	"udm/blk/nulldev"
	"udm/dm"
	"udm/env"
	"udm/targets/thin/thintools"
)

// How pools scale: metadata with 10^4 to 1.6·10^7 mappings of 64 KiB blocks, made by
// restoring XML, on a file; and many volumes in one pool.

const (
	mostMappings = 16_000_000
	metaSectors  = 3 << 20 // 1.5 GiB, sparse
)

func benchScale(r *report) error {
	dir, err := os.MkdirTemp(shm(), "udm-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	counts := []int{10_000, 1_000_000, mostMappings}
	if r.quick {
		counts = counts[:2]
	}
	for _, n := range counts {
		if err := r.mappings(dir, n); err != nil {
			return err
		}
	}
	if err := r.growth(dir); err != nil {
		return err
	}
	return r.volumes(dir)
}

// growth measures a pool whose data device grows: from 6 to 25 TiB with blocks of 64 KiB,
// and to 1 PiB with blocks of 1 MiB. Its metadata cache is bounded by 64 MiB.
func (r *report) growth(dir string) error {
	const tib = uint64(1) << 31 // sectors
	for _, g := range []struct {
		name       string
		block      int
		small, big uint64
		quick      bool
	}{
		{"6 to 25 TiB, blocks of 64 KiB", thinBlock, 6 * tib, 25 * tib, true},
		{"6 TiB to 1 PiB, blocks of 1 MiB", 2048, 6 * tib, 1024 * tib, false},
	} {
		if r.quick && !g.quick {
			continue
		}
		if err := r.grow(filepath.Join(dir, "grown"), g.name, g.block, g.small, g.big); err != nil {
			return err
		}
	}
	return nil
}

func (r *report) grow(path, name string, block int, small, big uint64) error {
	meta, err := newFile(path, metaSectors)
	if err != nil {
		return err
	}
	defer meta.Close()
	before := heap()
	data := &growing{Device: nulldev.New(big)}
	data.size.Store(small)
	s := newStack(map[string]blk.Device{"meta": meta, "data": data})
	d, took, err := growPool(s, data, block, big)
	if err != nil {
		return err
	}
	group := "growth: " + name
	r.one(group, "grow", "s", took.Seconds())
	held := heap() - before
	r.one(group, "memory", "MB", held)
	r.atMost(64+100, held, "%s: its memory in MB, with a cache of 64 MiB", group)
	const n = 1 << 17
	start := time.Now()
	for range n {
		if err := write(d, rand.Uint64N(big/uint64(block))*uint64(block), 8); err != nil {
			return err
		}
	}
	r.one(group, "provision a block at random", "µs", microseconds(time.Since(start))/n)
	return s.close()
}

// newFile makes an empty disk, in place of an older one.
func newFile(path string, sectors uint64) (*filedev.Device, error) {
	_ = os.Remove(path)
	if err := filedev.Create(path, sectors); err != nil {
		return nil, err
	}
	return filedev.Open(path, filedev.Options{})
}

// growing is a disk that becomes larger.
type growing struct {
	blk.Device
	size atomic.Uint64 // sectors
}

func (g *growing) Limits() blk.Limits {
	l := g.Device.Limits()
	l.Size = g.size.Load()
	return l
}

// growPool makes a pool with a volume, and loads the pool's table again when the data disk
// has grown, which took that long.
func growPool(s *stack, data *growing, block int, big uint64) (d *dm.Device, took time.Duration, err error) {
	const table = "0 %d thin-pool meta data %d 0 1 skip_block_zeroing"
	pool, err := s.device("pool", table, data.size.Load(), block)
	if err != nil {
		return nil, 0, err
	}
	if _, err = pool.Message(0, "create_thin 0"); err != nil {
		return nil, 0, err
	}
	if d, err = s.device("thin", "0 %d thin /dev/mapper/pool 0", big); err != nil {
		return nil, 0, err
	}
	data.size.Store(big)
	specs, err := dm.ParseTable(fmt.Sprintf(table, big, block))
	if err != nil {
		return nil, 0, err
	}
	start := time.Now()
	if err = pool.Load(specs, dm.Mode{Write: true}); err == nil {
		err = pool.Resume(context.Background(), false)
	}
	return d, time.Since(start), err
}

// mappings measures a pool whose one volume has n blocks mapped.
func (r *report) mappings(dir string, n int) error {
	path := filepath.Join(dir, "meta")
	_ = os.Remove(path)
	if err := filedev.Create(path, metaSectors); err != nil {
		return err
	}
	start := time.Now()
	if err := restore(path, n); err != nil {
		return err
	}
	group := fmt.Sprintf("scale: %d mappings", n)
	r.one(group, "restore from XML", "s", time.Since(start).Seconds())
	return r.pool(group, path, n)
}

func restore(path string, n int) error {
	meta, err := filedev.Open(path, filedev.Options{})
	if err != nil {
		return err
	}
	defer meta.Close()
	xml, w := io.Pipe()
	go func() { w.CloseWithError(writeXML(w, n)) }()
	return thintools.Restore(env.Real(), xml, meta, thintools.RestoreOptions{})
}

// writeXML writes the XML of a volume of n blocks in runs of up to 8 blocks, which are
// scattered over the data device.
func writeXML(w io.Writer, n int) error {
	b := bufio.NewWriterSize(w, 1<<16)
	fmt.Fprintf(b, `<superblock uuid="" time="0" transaction="1" version="2" data_block_size="128" nr_data_blocks="%d">`+"\n", 2*n+16)
	fmt.Fprintf(b, `<device dev_id="0" mapped_blocks="%d" transaction="0" creation_time="0" snap_time="0">`+"\n", n)
	order := rand.Perm((n + 7) / 8)
	for i, at := range order {
		run := min(8, n-8*i)
		fmt.Fprintf(b, `<range_mapping origin_begin="%d" data_begin="%d" length="%d" time="0"/>`+"\n", 8*i, 16*at, run)
	}
	fmt.Fprintf(b, "</device>\n</superblock>\n")
	return b.Flush()
}

func (r *report) one(group, name, unit string, v float64) {
	r.add(&figure{Group: group, Name: name, Unit: unit, Rounds: []float64{v}})
}

// heap returns the size of the live heap in MB. Pools keep what they hold until the second
// collection.
func heap() float64 {
	runtime.GC()
	debug.FreeOSMemory()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc) / 1e6
}

// pool opens the metadata as a pool and measures operations on it.
func (r *report) pool(group, path string, n int) error {
	meta, err := filedev.Open(path, filedev.Options{})
	if err != nil {
		return err
	}
	defer meta.Close()
	before := heap()
	blocks := uint64(2*n + 16 + 70000)
	s := newStack(map[string]blk.Device{"meta": meta, "data": nulldev.New(blocks * thinBlock)})
	start := time.Now()
	pool, err := s.device("pool", "0 %d thin-pool meta data %d 0 1 skip_block_zeroing", blocks*thinBlock, thinBlock)
	if err != nil {
		return err
	}
	d, err := s.device("thin", "0 %d thin /dev/mapper/pool 0", uint64(n)*thinBlock)
	if err != nil {
		return err
	}
	open := time.Since(start).Seconds()
	r.one(group, "open", "s", open)
	rate, err := r.lookUps(group, d, n)
	if err != nil {
		return err
	}
	if _, err = pool.Message(0, "create_thin 2"); err != nil {
		return err
	}
	if err := r.group(group, snapshots(s, "snapshot", 1000, 0), snapshots(s, "snapshot of an empty volume", 2000, 2)); err != nil {
		return err
	}
	held := heap() - before
	r.one(group, "memory", "MB", held)
	if n == mostMappings {
		r.atMost(2, open, "a pool of 16 million mappings opens, in seconds")
		r.atLeast(2e6, rate, "cached look-ups per second and core, of 16 million mappings")
		r.atMost(2, r.ratio(group, "snapshot", "snapshot of an empty volume"), "time of its snapshot, over that of an empty volume")
		r.atMost(64+100, held, "its memory in MB, with a cache of 64 MiB")
	}
	return s.close()
}

// lookUps measures random reads everywhere, most of which miss the caches, and then
// repeated random reads in a part that is cached.
func (r *report) lookUps(group string, d *dm.Device, n int) (cached float64, err error) {
	const cold, warm = 1 << 16, 1 << 21
	start := time.Now()
	if err = readMany(d, uint64(n), thinBlock, cold, 3); err != nil {
		return 0, err
	}
	r.one(group, "look-ups at random everywhere", "1/s", cold/time.Since(start).Seconds())
	part := uint64(min(n, 1<<20))
	for range 2 { // the first time fills the cache
		start = time.Now()
		if err = readMany(d, part, thinBlock, warm, 5); err != nil {
			return 0, err
		}
	}
	cached = warm / time.Since(start).Seconds()
	r.one(group, "look-ups in a million cached blocks", "1/s", cached)
	return cached, nil
}

// snapshots takes snapshots of volume id one after the other; their ids begin at first.
func snapshots(s *stack, name string, first, id int) measured {
	return measured{name, "ms", func() (float64, error) {
		pool, err := s.c.Name("pool")
		if err != nil {
			return 0, err
		}
		first++
		start := time.Now()
		_, err = pool.Message(0, fmt.Sprintf("create_snap %d %d", first, id))
		return float64(time.Since(start)) / 1e6, err
	}}
}

// volumes measures how many volumes are created and opened in one pool.
func (r *report) volumes(dir string) error {
	n := 10_000
	if r.quick {
		n = 1000
	}
	meta, err := newFile(filepath.Join(dir, "volumes"), 1<<20)
	if err != nil {
		return err
	}
	defer meta.Close()
	before := heap()
	s := newStack(map[string]blk.Device{"meta": meta, "data": nulldev.New(1 << 22)})
	pool, err := s.device("pool", "0 %d thin-pool meta data %d 0 1 skip_block_zeroing", 1<<22, thinBlock)
	if err != nil {
		return err
	}
	start := time.Now()
	for id := range n {
		if _, err := pool.Message(0, fmt.Sprint("create_thin ", id)); err != nil {
			return err
		}
		if _, err := s.device(fmt.Sprint("v", id), "0 %d thin /dev/mapper/pool %d", 1<<20, id); err != nil {
			return err
		}
	}
	group := fmt.Sprintf("scale: %d volumes", n)
	r.one(group, "make and open one", "ms", float64(time.Since(start))/1e6/float64(n))
	r.one(group, "memory", "MB", heap()-before)
	return s.close()
}
