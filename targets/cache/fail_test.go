package cache_test

import (
	"testing"
	"time"

	"udm/blk"
	"udm/blk/blktest"
	"udm/env"
)

// tables are those of the scenarios.
var tables = map[string]string{
	"writeback":    tableOf("2 metadata2 writeback smq 0"),
	"version1":     tableOf("0 smq 2 migration_threshold 64"),
	"writethrough": tableOf("2 writethrough metadata2 smq 0"),
}

// scenario promotes, writes back, demotes and reloads, and goes on after failures.
func (w *world) scenario(sim *env.Sim) {
	if w.start(sim) != nil {
		return
	}
	for b := range uint64(cacheBlocks) {
		w.write(b*bs, bs, b+1, 0)
	}
	w.flush()
	w.write(8, 8, 20, blk.FUA)
	sleep(sim, 3*time.Second) // what is dirty is written back
	w.write(16, 8, 21, 0)
	sleep(sim, 70*time.Second) // levels are distributed again
	for range 80 {
		_ = w.read((cacheBlocks+2)*bs, 8, true)
	}
	sleep(sim, time.Second)
	w.write(2*bs, 8, 22, blk.FUA)
	w.write((cacheBlocks+2)*bs, bs, 23, 0)
	w.flush()
	_ = w.load(tableOf("2 metadata2 writethrough cleaner 0"))
	if !w.dev.Status().Suspended {
		w.write(3*bs, 8, 24, 0)
		w.write(4*bs, 8, 25, 0)
		sleep(sim, 3*time.Second)
		w.flush()
	}
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
				if w.h != nil {
					w.close()
				} else {
					w.must(w.control.Close())
				}
				if f.Failed() {
					w.model.Doubt()
				}
				w.crash(0).wholeUnlessNew(f)
			})
			t.Logf("%d I/Os", n)
		})
	}
}

// wholeUnlessNew checks the world, unless its metadata could not even be made.
func (w *world) wholeUnlessNew(f *blktest.Failer) {
	w.Helper()
	p := make([]byte, 4096)
	w.must(blk.ReadSectors(env.NewStepped(), w.disks["a"], p, 0))
	for _, c := range p {
		if c != 0 {
			w.whole()
			return
		}
	}
	if !f.Failed() {
		w.Error("there is no metadata")
	}
}

// TestFullEach: whichever write finds no space, nothing is lost, and all goes on when
// there is space.
func TestFullEach(t *testing.T) {
	every := 3
	if testing.Short() {
		every = 29
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
				w.write(5*bs, 8, 30, 0)
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
	every, draws := 1, 4
	if testing.Short() {
		every, draws = 4, 1
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
