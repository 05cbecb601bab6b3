package writecache_test

import (
	"context"
	"testing"
	"time"

	"udm/blk"
	"udm/blk/blktest"
	"udm/env"
)

// tables are those of the scenarios.
var tables = map[string]string{
	"lazy":    tableOf("2 autocommit_time 3600000"),
	"eager":   tableOf("8 start_sector 4 autocommit_blocks 2 high_watermark 20 low_watermark 10"),
	"aging":   tableOf("6 max_age 800 writeback_jobs 3 pause_writeback 0"),
	"cleaner": tableOf("1 cleaner"),
}

// scenario fills the cache, overwrites, discards, writes back and reloads, and goes on
// after failures.
func (w *world) scenario(sim *env.Sim) {
	if w.start(sim) != nil {
		return
	}
	for i := range uint64(6) {
		w.write(i*8, 8, i+1, 0)
	}
	w.flush()
	w.write(4, 6, 20, blk.FUA)
	w.write(100, 2, 21, blk.FUA)
	_ = w.read(0, 60, true)
	w.write(2, 2, 22, 0)
	w.flush()
	w.discard(8, 6)
	for i := range uint64(4) {
		w.write(60+i*10, 10, 30+i, 0)
	}
	sleep(sim, 2*time.Second)
	_ = w.message("flush")
	w.write(4, 2, 40, 0)
	w.write(10, 4, 41, 0)
	w.flush()
	_ = w.load(w.table)
	if w.dev.Status().Suspended {
		return
	}
	w.write(10, 2, 42, blk.FUA)
	w.write(12, 2, 43, 0)
	_ = w.message("cleaner")
	sleep(sim, time.Second)
	w.write(12, 2, 44, 0)
	w.write(14, 2, 45, blk.FUA)
	_ = w.dev.Suspend(context.Background(), false)
	_ = w.dev.Resume(context.Background(), false)
	_ = w.read(0, originSize, true)
}

// formatted reports whether the cache has a superblock.
func (w *world) formatted() bool {
	p := make([]byte, blk.SectorSize)
	w.must(blk.ReadSectors(env.NewStepped(), w.disks["b"], p, w.startSector()))
	return p[0] != 0
}

// end closes what a scenario has started.
func (w *world) end() {
	if w.h == nil {
		w.must(w.control.Close())
		return
	}
	w.close()
}

// TestFailEach: whichever I/O of whichever disk fails, what was flushed is there.
func TestFailEach(t *testing.T) {
	every := 1
	if testing.Short() {
		every = 31
	}
	for name, table := range tables {
		t.Run(name, func(t *testing.T) {
			n := blktest.FailEvery(t, every, func(t *testing.T, f *blktest.Failer) {
				w := newWorld(t, table)
				w.wrap = func(_ string, d blk.Device) blk.Device { return f.Wrap(d) }
				w.scenario(env.NewStepped())
				w.end()
				if f.Failed() {
					w.model.Doubt()
				}
				after := w.crash(0)
				if after.formatted() || !f.Failed() {
					after.whole()
				}
			})
			t.Logf("%d I/Os", n)
		})
	}
}

// TestFullEach: whichever write finds no space, nothing is lost, and all goes on when
// there is space.
func TestFullEach(t *testing.T) {
	every := 1
	if testing.Short() {
		every = 31
	}
	for name, table := range tables {
		t.Run(name, func(t *testing.T) {
			blktest.FullEach(t, every, func(t *testing.T, f *blktest.Failer) {
				w := newWorld(t, table)
				w.wrap = func(_ string, d blk.Device) blk.Device { return f.Wrap(d) }
				sim := env.NewStepped()
				w.scenario(sim)
				f.MakeSpace()
				if w.h == nil {
					w.must(w.control.Close())
					return
				}
				sleep(sim, 2*time.Second)
				if w.dev.Status().Suspended {
					w.must(w.load(table))
				}
				w.write(50, 8, 60, 0)
				w.must(blk.FlushDevice(sim, w.h))
				w.must(w.read(0, originSize, false))
				w.close()
				w.whole()
			})
		})
	}
}

// TestPowerCuts cuts the power at each moment of the scenario at which a disk has just
// done something.
func TestPowerCuts(t *testing.T) {
	every, draws := 1, 8
	if testing.Short() {
		every, draws = 2, 1
	}
	for name, table := range tables {
		t.Run(name, func(t *testing.T) {
			count, states := 0, 0
			w := newWorld(t, table)
			w.wrap = func(_ string, d blk.Device) blk.Device {
				return &watched{d, func() {
					if count++; count%every == 0 && w.h != nil {
						for i := range draws {
							states++
							w.crash(uint64(count*draws + i)).whole()
						}
					}
				}}
			}
			w.scenario(env.NewStepped())
			w.close()
			if states < 10 {
				t.Errorf("only %d states", states)
			}
		})
	}
}

// watched calls done after each write and flush.
type watched struct {
	blk.Device
	done func()
}

func (d *watched) Submit(b *blk.Bio) {
	if b.Op == blk.Read {
		d.Device.Submit(b)
		return
	}
	end := b.End
	b.End = func(b *blk.Bio) { d.done(); b.End = end; end(b) }
	d.Device.Submit(b)
}

func (d *watched) Close() error { return nil }
