package thin

import (
	"fmt"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"udm/blk"
	"udm/blk/memdev"
	"udm/dm"
	"udm/targets/thin/thintools"
)

// scatteredVolume is a volume of n blocks, each a run of its own.
func scatteredVolume(t *testing.T, n uint64, features ...string) (*rig, *dm.Device) {
	r := newRig(t)
	r.start(8192, features...)
	d := r.thin(0, 8192)
	p, th := r.internals(d)
	r.Sim.Go("fill", func() {
		p.call(func() { r.Must(th.mapScattered(n)) })
	})
	r.Sim.Run()
	r.usage(n)
	return r, d
}

// TestLargeDiscardLetsOthersIn: the owner unmaps at most a portion at each end of a pass,
// other bios are served meanwhile, and a power cut at any moment leaves sound metadata.
func TestLargeDiscardLetsOthersIn(t *testing.T) {
	for _, features := range [][]string{nil, {"no_discard_passdown"}} {
		t.Run(fmt.Sprint(features), func(t *testing.T) {
			const n = 5000
			r, d := scatteredVolume(t, n, features...)
			_, th := r.internals(d)
			x := r.send(d, blk.Discard, 0, 0, n*bs, 0)
			var w *ioT
			steps := 0
			for was := th.vol.td.Mapped(); r.Sim.Step(); was = th.vol.td.Mapped() {
				now := th.vol.td.Mapped()
				if was > now+2*portion {
					t.Fatalf("%d blocks were unmapped at once", was-now)
				}
				if was <= now {
					continue
				}
				if steps++; w == nil {
					w = r.send(d, blk.Write, blk.FUA, 8000*bs, 8, 1)
				}
				if w.Ends == 0 && x.Ends > 0 {
					t.Error("a write was not served before the end of the discard")
				}
				report, err := thintools.Check(r.Sim, r.Disk("m").CrashClone(uint64(steps)), thintools.CheckOptions{})
				if err != nil || report.Err() != nil {
					t.Errorf("after a power cut: %v, %v", err, report.Err())
				}
			}
			r.Done(x, blk.OK)
			r.Done(w, blk.OK)
			r.Do(d, blk.Flush, 0, 0, 0, blk.OK)
			r.usage(1)
			if steps < n/(2*portion) {
				t.Errorf("%d steps", steps)
			}
		})
	}
}

// TestAbortDuringADiscard: blocks that were mapped again stay mapped, and the discard
// fails.
func TestAbortDuringADiscard(t *testing.T) {
	const n = 5000
	r, d := scatteredVolume(t, n)
	p, th := r.internals(d)
	x := r.send(d, blk.Discard, 0, 0, n*bs, 0)
	for th.vol.td.Mapped() == n {
		r.step()
	}
	r.Sim.Go("abort", func() { p.call(func() { p.metadataFailed(syscall.EIO) }) })
	r.Sim.Run()
	r.Done(x, blk.IOErr)
	r.usage(n)
}

// BenchmarkLargeDiscard discards 65,536 blocks, each a run of its own, and reports the
// longest time in which the pool did nothing else.
func BenchmarkLargeDiscard(b *testing.B) {
	for _, features := range []string{"", " 1 no_discard_passdown"} {
		b.Run("pool"+features, func(b *testing.B) {
			r := newBench(b, func() blk.Device { return memdev.New(2 * benchBlocks * bs) })
			pool := r.device("pool", fmt.Sprintf("0 %d thin-pool m d %d 0%s", 2*benchBlocks*bs, bs, features))
			r.msg(pool, "create_thin 0")
			d := r.device("thin", fmt.Sprintf("0 %d thin /dev/mapper/pool 0", benchBlocks*bs))
			th := d.Target(0).Mapper().(*thin)
			longest := time.Duration(0)
			for b.Loop() {
				b.StopTimer()
				th.pool.call(func() { r.must(th.mapScattered(benchBlocks)) })
				b.StartTimer()
				longest = max(longest, r.longestPause(th, benchBlocks))
			}
			b.ReportMetric(float64(longest.Microseconds()), "pause-µs")
		})
	}
}

// mapScattered maps n blocks, each a run of its own.
func (t *thin) mapScattered(n uint64) error {
	t.pool.change(t.vol)
	for k := range n {
		data, err := t.pool.md.AllocDataBlock()
		if err == nil {
			err = t.vol.td.Insert(n-1-k, data)
		}
		if err != nil {
			return err
		}
	}
	return t.pool.commit()
}

// longestPause discards n blocks and sends requests to the owner meanwhile.
func (r *bench) longestPause(t *thin, n uint64) (longest time.Duration) {
	var done atomic.Bool
	t.t.Device().Submit(&blk.Bio{Op: blk.Discard, Sectors: n * bs, End: func(*blk.Bio) { done.Store(true) }})
	for !done.Load() {
		start := time.Now()
		t.pool.call(func() {})
		longest = max(longest, time.Since(start))
	}
	return longest
}
