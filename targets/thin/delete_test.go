package thin

import (
	"fmt"
	"math"
	"sync/atomic"
	"testing"
	"time"

	"udm/blk"
	"udm/blk/memdev"
	"udm/dm"
	"udm/env"
	"udm/targets/thin/thinmeta"
	"udm/targets/thin/thintools"
)

// deletedVolume is a pool with volume 1, a block of which is mapped, and a volume 0 of
// n mappings that has just been deleted; nothing more has been done.
func deletedVolume(t *testing.T, n uint64, features ...string) (*rig, *dm.Device) {
	r, d := scatteredVolume(t, n, features...)
	other := r.thin(1, 64)
	r.Write(other, 0, 8, 1)
	r.Must(d.Close())
	p, _ := r.internals(other)
	var err error
	done := false
	r.Sim.Go("delete", func() {
		p.call(func() { err = p.message("delete", [2]uint64{0}) })
		done = true
	})
	for !done {
		r.step()
	}
	r.Must(err)
	return r, other
}

// left returns how many mappings of volumes being deleted are on the metadata disk
// after a power cut, and whether there is such a volume.
func (r *rig) left(seed uint64) (mappings uint64, any bool) {
	r.Helper()
	report, err := thintools.Check(r.Sim, r.Disk("m").CrashClone(seed), thintools.CheckOptions{})
	if err != nil || report.Err() != nil {
		r.Fatalf("after a power cut: %v, %v", err, report.Err())
	}
	for id, d := range report.Devices {
		if id > thinmeta.MaxID {
			mappings, any = mappings+d.Mapped, true
		}
	}
	return mappings, any
}

// TestLargeDeleteLetsOthersIn: the message is answered before the mappings are removed,
// the id is free, and the owner removes at most a portion at a time, so that others are
// served meanwhile. A power cut at any moment leaves sound metadata.
func TestLargeDeleteLetsOthersIn(t *testing.T) {
	const n = 5000
	r, d := deletedVolume(t, n)
	p, th := r.internals(d)
	if left, _ := r.left(0); left != n {
		t.Errorf("%d mappings are left after the message", left)
	}
	free := p.md.FreeData()
	var ws []*ioT
	steps := 0
	for before := free; r.Sim.Step(); before = p.md.FreeData() {
		now := p.md.FreeData()
		if now > before+portion+252 {
			t.Fatalf("%d blocks became free at once", now-before)
		}
		if now > before {
			steps++
			r.left(uint64(steps))
			ws = append(ws, r.send(d, blk.Write, blk.FUA, uint64(steps)*bs, 8, 1))
		}
	}
	for _, w := range ws {
		r.Done(w, blk.OK)
	}
	if steps < n/(portion+252) {
		t.Errorf("%d steps", steps)
	}
	r.usage(1 + uint64(len(ws)))
	r.msg("create_thin 0")
	if th.vol.td.Mapped() != 1+uint64(len(ws)) {
		t.Errorf("the other volume has %d blocks", th.vol.td.Mapped())
	}
}

// TestDeleteGoesOnAfterAPowerCut: a pool that is opened again finishes a deletion.
func TestDeleteGoesOnAfterAPowerCut(t *testing.T) {
	r, d := deletedVolume(t, 5000)
	p, _ := r.internals(d)
	for free := p.md.FreeData(); p.md.FreeData() < free+1000; {
		r.step()
	}
	r.Do(d, blk.Flush, 0, 0, 0, blk.OK)
	w := newBusyPool(t, env.NewStepped())
	w.meta, w.data, w.blocks = r.Disk("m").CrashClone(1), r.Disk("d").CrashClone(2), 8192
	w.must(w.start())
	w.pool.Lines(dm.Info, false, 0)
	for used := ""; used != "1/8192"; used = w.status()[2] {
		if !w.e.(*env.Sim).Step() {
			t.Fatalf("%s blocks are in use", used)
		}
	}
	w.stop()
	w.checkMetadata(false, true)
}

// TestDeleteOfASuspendedPool: nothing is written while the pool is suspended. A pool
// finishes its deletions before it closes.
func TestDeleteOfASuspendedPool(t *testing.T) {
	r, d := deletedVolume(t, 5000)
	r.Suspend(r.pool, false)
	before, any := r.left(1)
	if !any || before == 0 {
		t.Fatal("the deletion is over")
	}
	r.Gate("m").Forget()
	r.Sim.Run()
	r.held("m")
	if trace := r.Gate("m").Trace(); trace != "" {
		t.Errorf("written while suspended: %s", trace)
	}
	r.Must(d.Close())
	r.Must(r.pool.Close())
	if _, any := r.left(2); any {
		t.Error("a volume is left")
	}
	r.pool = nil
}

// TestDeletedBlocksAreFreeWhenNeeded: a pool does not run out of space as long as a
// deleted volume has blocks, or had some at the last commit.
func TestDeletedBlocksAreFreeWhenNeeded(t *testing.T) {
	for _, begun := range []bool{false, true} {
		r, d := deletedVolume(t, 8191, "error_if_no_space")
		p, _ := r.internals(d)
		for begun && p.md.FreeData() == 0 {
			r.step()
		}
		x := r.send(d, blk.Write, 0, 5*bs, 8, 1)
		r.Sim.Run()
		r.Done(x, blk.OK)
		r.usage(2)
	}
}

// BenchmarkLargeDelete deletes a volume of 65,536 scattered mappings, in portions and
// at once, and reports the longest time in which the pool did nothing else.
func BenchmarkLargeDelete(b *testing.B) {
	for name, most := range map[string]uint32{"portions": portion, "atonce": math.MaxUint32} {
		b.Run(name, func(b *testing.B) {
			r := newBench(b, func() blk.Device { return memdev.New(2 * benchBlocks * bs) })
			pool := r.device("pool", fmt.Sprintf("0 %d thin-pool m d %d 0", 2*benchBlocks*bs, bs))
			p, err := poolOf(pool)
			r.must(err)
			p.deleteMost.Set(most)
			longest := time.Duration(0)
			for b.Loop() {
				b.StopTimer()
				r.msg(pool, "create_thin 0")
				d := r.device("thin", fmt.Sprintf("0 %d thin /dev/mapper/pool 0", benchBlocks*bs))
				p.call(func() { r.must(d.Target(0).Mapper().(*thin).mapScattered(benchBlocks)) })
				r.must(d.Close())
				b.StartTimer()
				longest = max(longest, r.longestDelete(pool, p))
			}
			b.ReportMetric(float64(longest.Microseconds()), "pause-µs")
		})
	}
}

// longestDelete deletes volume 0 and sends requests to the owner meanwhile.
func (r *bench) longestDelete(d *dm.Device, p *pool) (longest time.Duration) {
	var done atomic.Bool
	go func() {
		r.msg(d, "delete 0")
		done.Store(true)
	}()
	for busy := true; busy || !done.Load(); {
		start := time.Now()
		p.call(func() { busy = p.deleting })
		longest = max(longest, time.Since(start))
	}
	return longest
}
