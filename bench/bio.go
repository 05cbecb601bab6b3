package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"udm/blk"
	"udm/blk/memdev"
	"udm/blk/nulldev"
	"udm/dm"
	"udm/env"
)

// The cost of a bio in this process: random I/O of 4 KiB to 65,536 mapped blocks on a
// device that does nothing, compared with copies of 4 KiB.

const (
	bioBlocks = 65536
	bioCount  = 1 << 21 // in one run
	thinBlock = 128     // sectors
)

func benchBio(r *report) error {
	linear, snap, thin, err := bioDevices()
	if err != nil {
		return err
	}
	_, otherSnap, otherThin, err := bioDevices()
	if err != nil {
		return err
	}
	small, large := make([]byte, 8192), make([]byte, 256<<20)
	order := random(1<<16, len(large)/8192)
	err = r.group("bio",
		ns("copy 4 KiB, cached", bioCount, func(i int) { copy(small[:4096], small[4096:]) }),
		ns("copy 4 KiB, random in 256 MiB", bioCount/4, func(i int) {
			at := order[i&0xffff] * 8192
			copy(large[at:at+4096], large[at+4096:])
		}),
		perBio("linear", linear, 8), perBio("snapshot, mapped", snap, 8), perBio("thin, mapped", thin, thinBlock))
	if err == nil {
		err = r.machine()
	}
	if err != nil {
		return err
	}
	for name, bound := range map[string]float64{"linear": 2, "snapshot, mapped": 5, "thin, mapped": 5} {
		r.atMost(bound, r.ratio("bio", name, "copy 4 KiB, cached"), "a bio through %s, in cached copies", name)
		r.atMost(1, r.ratio("bio", name, "copy 4 KiB, random in 256 MiB"), "a bio through %s, in random copies", name)
	}
	for name, d := range map[string]struct {
		dev  *dm.Device
		step uint64
	}{"linear": {linear, 8}, "snapshot, mapped": {snap, 8}, "thin, mapped": {thin, thinBlock}} {
		r.atMost(0, allocations(d.dev, d.step), "allocations per bio through %s", name)
	}
	return errors.Join(
		r.scaling("snapshot, mapped", 8, snap, otherSnap),
		r.scaling("thin, mapped", thinBlock, thin, otherThin))
}

// machine measures how long a cache line takes from one processor to another. Workers
// that write to the same table of exceptions cannot be faster than that. On a virtual
// machine it is 40 ns or 140 ns, depending on where its host has placed the processors.
func (r *report) machine() error {
	if runtime.NumCPU() < 2 {
		return nil
	}
	return r.group("machine", measured{"cache line handed to another processor", "ns", handOver})
}

func handOver() (float64, error) {
	const n = 1 << 19
	var turn atomic.Int64
	play := func(from int64) {
		for i := from; i < n; i += 2 {
			for !turn.CompareAndSwap(i, i+1) {
			}
		}
	}
	var other sync.WaitGroup
	other.Go(func() { play(1) })
	start := time.Now()
	play(0)
	other.Wait()
	return float64(time.Since(start)) / n, nil
}

// bioDevices makes the three devices, with every block mapped.
func bioDevices() (linear, snap, thin *dm.Device, err error) {
	s := newStack(map[string]blk.Device{
		"null": nulldev.New(bioBlocks * 8), "cow": nulldev.New(bioBlocks * 16),
		"data": nulldev.New(2 * bioBlocks * thinBlock), "meta": memdev.New(1 << 16),
	})
	if linear, err = s.device("linear", "0 %d linear null 0", bioBlocks*8); err != nil {
		return
	}
	if snap, err = s.device("snap", "0 %d snapshot null cow N 8", bioBlocks*8); err != nil {
		return
	}
	if thin, err = s.pool(2*bioBlocks, bioBlocks); err != nil {
		return
	}
	for _, i := range rand.Perm(bioBlocks) {
		if err = write(snap, uint64(i)*8, 1); err == nil {
			err = write(thin, uint64(i)*thinBlock, 1)
		}
		if err != nil {
			return
		}
	}
	// The first look-up after a change makes the pool's owner publish the change.
	err = readMany(thin, bioBlocks, thinBlock, bioBlocks, 0)
	return
}

// pool makes a pool on "meta" and "data" and a thin device in it, in blocks.
func (s *stack) pool(blocks, size uint64) (*dm.Device, error) {
	pool, err := s.device("pool", "0 %d thin-pool meta data %d 0 1 skip_block_zeroing", blocks*thinBlock, thinBlock)
	if err != nil {
		return nil, err
	}
	if _, err := pool.Message(0, "create_thin 0"); err != nil {
		return nil, err
	}
	return s.device("thin", "0 %d thin /dev/mapper/pool 0", size*thinBlock)
}

func write(d blk.Device, sector, sectors uint64) error {
	return blk.WriteSectors(env.Real(), d, make([]byte, sectors*blk.SectorSize), sector, 0)
}

func random(n, max int) []int {
	order := make([]int, n)
	for i := range order {
		order[i] = rand.IntN(max)
	}
	return order
}

// ns times n calls.
func ns(name string, n int, fn func(i int)) measured {
	return measured{name, "ns", func() (float64, error) {
		start := time.Now()
		for i := range n {
			fn(i)
		}
		return float64(time.Since(start)) / float64(n), nil
	}}
}

func perBio(name string, d *dm.Device, step uint64) measured { return perOp(name, blk.Read, d, step) }

func perOp(name string, op blk.Op, d *dm.Device, step uint64) measured {
	return measured{name, "ns", func() (float64, error) {
		start := time.Now()
		if err := sendMany(op, d, bioBlocks, step, bioCount, 0); err != nil {
			return 0, err
		}
		return float64(time.Since(start)) / bioCount, nil
	}}
}

// submitMany reads n random blocks one after the other, among the first blocks of the
// device, which begin every step sectors. All must end inline.
func submitMany(d *dm.Device, blocks, step uint64, n int, seed uint32) error {
	return sendMany(blk.Read, d, blocks, step, n, seed)
}

// sendMany is submitMany for reads or writes.
func sendMany(op blk.Op, d *dm.Device, blocks, step uint64, n int, seed uint32) error {
	b := blk.Bio{Op: op}
	ended := 0
	b.SetData(make([]byte, 4096))
	b.End = func(*blk.Bio) { ended++ }
	x := seed
	for range n {
		b.Rearm()
		x = x*1664525 + 1013904223
		b.Sector, b.Sectors = uint64(x)*blocks>>32*step, 8
		d.Submit(&b)
	}
	if ended != n {
		return fmt.Errorf("%d of %d bios did not end inline", n-ended, n)
	}
	return b.Status().Err()
}

// readMany is submitMany for bios that may wait for metadata.
func readMany(d *dm.Device, blocks, step uint64, n int, seed uint32) error {
	var b blk.Bio
	done := make(chan struct{}, 1)
	b.SetData(make([]byte, 4096))
	b.End = func(*blk.Bio) { done <- struct{}{} }
	x := seed
	for range n {
		b.Rearm()
		x = x*1664525 + 1013904223
		b.Sector, b.Sectors = uint64(x)*blocks>>32*step, 8
		d.Submit(&b)
		<-done
		if b.Status() != blk.OK {
			return b.Status()
		}
	}
	return nil
}

// allocations returns the number of objects allocated per bio.
func allocations(d *dm.Device, step uint64) float64 { return allocationsOf(blk.Read, d, step) }

func allocationsOf(op blk.Op, d *dm.Device, step uint64) float64 {
	const n = 1 << 18
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_ = sendMany(op, d, bioBlocks, step, n, 1)
	runtime.ReadMemStats(&after)
	// A garbage collection in between may empty a pool, so a handful of objects in a
	// quarter of a million bios counts as none.
	return float64((after.Mallocs - before.Mallocs) / (n / 1000))
}

// parallel returns the bios per second of a number of workers, which share the devices.
func parallel(workers int, step uint64, ds ...*dm.Device) (float64, error) {
	const total = 4 * bioCount
	errs := make([]error, workers)
	start := time.Now()
	share(workers, total, func(w int, next batches) {
		for from, to := next(); from < to && errs[w] == nil; from, to = next() {
			errs[w] = submitMany(ds[w%len(ds)], bioBlocks, step, to-from, uint32(from)*7919)
		}
	})
	return total / time.Since(start).Seconds(), errors.Join(errs...)
}

// batches hands out the work in parts [from, to). from equals to if no work is left.
type batches func() (from, to int)

const batchLen = 1 << 12

// share lets workers do total pieces of work together. They take parts as they go, so
// that the rate of all is measured and not the scheduler's delay of the last one.
func share(workers, total int, work func(worker int, next batches)) {
	var taken atomic.Int64
	next := func() (from, to int) {
		to = int(taken.Add(batchLen))
		return min(to-batchLen, total), min(to, total)
	}
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() { work(w, next) })
	}
	wg.Wait()
}

// ownDevices is the control of what scales: two workers that share nothing.
const ownDevices = "2 workers, each with its own"

// scaling runs a device with 1, 2 and 8 workers, and claims that they share the work. The
// control has another device of the same kind.
func (r *report) scaling(name string, step uint64, d, other *dm.Device) error {
	var ms []measured
	for _, w := range []int{1, 2, 8} {
		ms = append(ms, measured{fmt.Sprintf("%d workers", w), "bios/s", func() (float64, error) { return parallel(w, step, d) }})
	}
	ms = append(ms, measured{ownDevices, "bios/s", func() (float64, error) { return parallel(2, step, d, other) }})
	group := "scaling of " + name
	if err := r.group(group, ms...); err != nil {
		return err
	}
	if runtime.NumCPU() >= 2 {
		r.atLeast(1.8, r.ratio(group, ms[1].name, ms[0].name), "%s: two workers over one", name)
		r.atLeast(0.95, r.ratio(group, ms[1].name, ownDevices), "%s: two workers over two that share nothing", name)
	}
	r.atLeast(0.95, r.ratio(group, ms[2].name, ms[1].name), "%s: eight workers over two", name)
	return nil
}
