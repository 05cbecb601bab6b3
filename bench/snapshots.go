package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"time"

	"udm/blk"
	"udm/blk/memdev"
	"udm/blk/nulldev"
	"udm/dm"
	"udm/env"
)

// The experiments of two upstream changes to the kernel's snapshots.
//
// "Use fine-grained locking scheme" (Linux 5.2): random 4 KiB writes, each block
// once, to an origin and to a snapshot, chunk 4 KiB, a fresh snapshot each time,
// on a disk that does nothing. Its figures, in writes per second of 1, 2, 4 and 8
// workers: origin 66421, 77589, 98839, 109258; snapshot 84938, 134973, 143077,
// 180085; and one at a time, in µs: origin 13.27, 25.08, 41.08, 74.44; snapshot
// 10.6, 14.89, 23.47, 48.48.
//
// "Skip reading origin when overwriting complete chunk" (Linux 3.1): whole-chunk
// over part-chunk sequential writes was 1.5 to 1.63.

const onceBlocks = 1 << 18 // 1 GiB of 4 KiB blocks

var upstream = map[string]map[int]float64{
	"origin":   {1: 66421, 2: 77589, 4: 98839, 8: 109258},
	"snapshot": {1: 84938, 2: 134973, 4: 143077, 8: 180085},
}

func benchSnapshots(r *report) error {
	workers := []int{1, 2, 4, 8}
	stores := []string{"N", "P"}
	if r.quick {
		workers, stores = []int{1, 2, 8}, stores[:1]
	}
	for _, what := range []string{"origin", "snapshot"} {
		for _, store := range stores {
			for _, depth := range []int{32, 1} {
				if err := r.exceptions(what, store, depth, workers); err != nil {
					return err
				}
			}
			r.claimExceptions(what, store, workers)
		}
	}
	return r.fullChunks()
}

func exceptionGroup(what, store string, depth int) string {
	return fmt.Sprintf("writes to a fresh %s, store %s, depth %d", what, store, depth)
}

func (r *report) exceptions(what, store string, depth int, workers []int) error {
	var ms []measured
	tails := &latencies{}
	for _, w := range workers {
		ms = append(ms, measured{fmt.Sprintf("%d workers", w), "writes/s", func() (float64, error) {
			return writeFresh(what, store, w, depth, 1, tails)
		}})
	}
	ms = append(ms, measured{ownDevices, "writes/s", func() (float64, error) {
		return writeFresh(what, store, 2, depth, 2, &latencies{})
	}})
	group := exceptionGroup(what, store, depth)
	if err := r.group(group, ms...); err != nil {
		return err
	}
	if depth == 1 {
		r.add(tails.figures(group + ", latency")...)
	}
	return nil
}

// claimExceptions promises how workers share the work. Store P is the one that people use;
// the kernel's figures are of store N.
func (r *report) claimExceptions(what, store string, workers []int) {
	g := exceptionGroup(what, store, 32)
	for _, w := range workers {
		r.one(g+", over the kernel's on null_blk", fmt.Sprintf("%d workers", w), "times", r.find(g, fmt.Sprintf("%d workers", w)).median()/upstream[what][w])
	}
	two, eight := r.ratio(g, "2 workers", "1 workers"), r.ratio(g, "8 workers", "2 workers")
	r.atLeast(0.95, r.ratio(g, "2 workers", ownDevices), "writes to a fresh %s, store %s: two workers over two that share nothing", what, store)
	if store == "P" {
		r.atLeast(1.7, two, "writes to a fresh %s, store P: two workers over one", what)
		r.atLeast(1, eight, "writes to a fresh %s, store P: eight workers over two", what)
		return
	}
	r.atLeast(10, r.find(g, "1 workers").median()/upstream[what][1], "writes to a fresh %s, store N, one worker, over the kernel's on null_blk", what)
	r.atLeast(1.8, two, "writes to a fresh %s: two workers over one", what)
	r.atLeast(0.95, eight, "writes to a fresh %s: eight workers over two", what)
}

// freshSnapshots is the number of snapshots that one run writes to: with only one, the run
// would end before the scheduler has spread the workers.
const freshSnapshots = 4

// writeFresh returns the writes per second to fresh snapshots, one after the other.
func writeFresh(what, store string, workers, depth, devices int, tails *latencies) (float64, error) {
	var took time.Duration
	for range freshSnapshots {
		t, err := writeOnce(what, store, workers, depth, devices, tails)
		if err != nil {
			return 0, err
		}
		took += t
	}
	return freshSnapshots * onceBlocks / took.Seconds(), nil
}

// writeOnce writes every block once in random order. The workers share the devices.
func writeOnce(what, store string, workers, depth, devices int, tails *latencies) (time.Duration, error) {
	var stacks []*stack
	var ds []*dm.Device
	for range devices {
		s, d, err := fresh(what, store)
		if err != nil {
			return 0, err
		}
		stacks, ds = append(stacks, s), append(ds, d)
	}
	order, took := rand.Perm(onceBlocks), make([]time.Duration, onceBlocks)
	runtime.GC() // so that the garbage of the last run is not collected in the time of this one
	start := time.Now()
	share(workers, onceBlocks, func(w int, next batches) { writeBlocks(ds[w%devices], order, next, depth, took) })
	whole := time.Since(start)
	if depth == 1 {
		tails.add(took)
	}
	var errs []error
	for _, s := range stacks {
		errs = append(errs, s.close())
	}
	return whole, errors.Join(errs...)
}

// fresh makes an origin with a new snapshot, and returns one of them.
func fresh(what, store string) (*stack, *dm.Device, error) {
	disks := map[string]blk.Device{"o": nulldev.New(onceBlocks * 8), "c": nulldev.New(onceBlocks * 16)}
	if store == "P" {
		disks["c"] = memdev.New(onceBlocks * 17)
	}
	s := newStack(disks)
	origin, err := s.device("origin", "0 %d snapshot-origin o", onceBlocks*8)
	if err != nil {
		return nil, nil, err
	}
	snap, err := s.device("snap", "0 %d snapshot o c %s 8", onceBlocks*8, store)
	return s, map[string]*dm.Device{"origin": origin, "snapshot": snap}[what], err
}

// writeBlocks keeps depth writes in flight and records how long each takes.
func writeBlocks(d blk.Device, order []int, next batches, depth int, took []time.Duration) {
	w := newWriter(depth)
	for from, to := next(); from < to; from, to = next() {
		for i, n := range order[from:to] {
			b := w.take()
			b.Rearm()
			b.Op, b.Sector = blk.Write, uint64(n)*8
			b.SetData(w.buf[:])
			if depth > 1 {
				d.Submit(b)
				continue
			}
			start := time.Now()
			d.Submit(b)
			w.end(w.take())
			took[from+i] = time.Since(start)
		}
	}
	for range depth {
		w.take()
	}
}

const maxDepth = 32

// writer holds the bios of one worker in one allocation: two workers whose bios are
// neighbours in memory run at a third of their speed.
type writer struct {
	mu   sync.Mutex
	came sync.Cond // on mu; wakes when free is no longer empty
	free [maxDepth]*blk.Bio
	n    int // guarded by mu; how many are free
	bios [maxDepth]blk.Bio
	buf  [4096]byte
	_    [64]byte
}

func newWriter(depth int) *writer {
	w := &writer{}
	w.came.L = &w.mu
	for i := range depth {
		w.bios[i].End = w.end
		w.end(&w.bios[i])
	}
	return w
}

func (w *writer) end(b *blk.Bio) {
	w.mu.Lock()
	w.free[w.n] = b
	w.n++
	w.mu.Unlock()
	w.came.Signal()
}

func (w *writer) take() *blk.Bio {
	w.mu.Lock()
	defer w.mu.Unlock()
	for w.n == 0 {
		w.came.Wait()
	}
	w.n--
	return w.free[w.n]
}

// latencies counts writes by their duration in units of 10 ns; the last count is that of
// all longer ones.
type latencies [1 << 16]int

const latencyStep = 10 * time.Nanosecond

func (l *latencies) add(took []time.Duration) {
	for _, d := range took {
		l[min(d/latencyStep, time.Duration(len(l)-1))]++
	}
}

func (l *latencies) figures(group string) (fs []*figure) {
	total := 0
	for _, n := range l {
		total += n
	}
	for _, p := range []float64{50, 90, 99, 99.9} {
		at, left := 0, int(p/100*float64(total))
		for ; left > l[at]; at++ {
			left -= l[at]
		}
		us := (time.Duration(at) * latencyStep).Seconds() * 1e6
		fs = append(fs, &figure{Group: group, Name: fmt.Sprintf("percentile %v", p), Unit: "µs", Rounds: []float64{us}})
	}
	return fs
}

// fullChunks compares sequential writes of whole chunks with writes of half chunks.
func (r *report) fullChunks() error {
	const size = 64 << 20 / blk.SectorSize
	origin, cow := memdev.New(size), memdev.New(2*size+4096)
	for at := uint64(0); at < size; at += 2048 {
		p := make([]byte, 2048*blk.SectorSize)
		p[0] = 1
		for _, d := range []blk.Device{origin, cow} {
			if err := blk.WriteSectors(env.Real(), d, p, at, 0); err != nil {
				return err
			}
		}
	}
	for _, chunk := range []uint64{8, 128} {
		run := func(step uint64) func() (float64, error) {
			return func() (float64, error) { return sequential(origin, cow, size, chunk, step) }
		}
		group := fmt.Sprintf("sequential writes to a snapshot, chunk %d KiB", chunk/2)
		if err := r.group(group, measured{"whole chunks", "MB/s", run(chunk)}, measured{"half chunks", "MB/s", run(chunk / 2)}); err != nil {
			return err
		}
		r.atLeast(1.6, r.ratio(group, "whole chunks", "half chunks"), "whole-chunk over part-chunk writes, chunk %d KiB", chunk/2)
	}
	return nil
}

func sequential(origin, cow blk.Device, size, chunk, step uint64) (float64, error) {
	s := newStack(map[string]blk.Device{"o": origin, "c": cow})
	d, err := s.device("snap", "0 %d snapshot o c N %d", size, chunk)
	if err != nil {
		return 0, err
	}
	p := make([]byte, step*blk.SectorSize)
	start := time.Now()
	for at := uint64(0); at < size; at += step {
		if err := blk.WriteSectors(env.Real(), d, p, at, 0); err != nil {
			return 0, err
		}
	}
	rate := float64(size*blk.SectorSize) / 1e6 / time.Since(start).Seconds()
	return rate, s.close()
}
