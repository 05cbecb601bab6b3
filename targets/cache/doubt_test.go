package cache_test

import (
	"testing"

	"udm/blk"
	"udm/blk/blktest"
	"udm/env"
)

// hung is a disk that answers no flush once its superblock has been written.
type hung struct {
	blk.Device
	on, written bool
}

func (d *hung) Submit(b *blk.Bio) {
	d.written = d.written || d.on && b.Op == blk.Write && b.Sector == 0
	if !d.written || b.Op != blk.Flush {
		d.Device.Submit(b)
	}
}

// TestWhatWasReadIsDurable kills the process before the superblock is flushed. The next one
// finds what was written; after a flush it is there even if the power is cut.
func TestWhatWasReadIsDurable(t *testing.T) {
	for seed := range uint64(8) {
		w := newWorld(t, tables["writeback"])
		h := &hung{Device: kept{w.disks["a"]}}
		w.wrap = func(name string, d blk.Device) blk.Device {
			if name == "a" {
				return h
			}
			return d
		}
		sim := env.NewStepped()
		w.must(w.start(sim))
		h.on = true
		w.must(blk.WriteSectors(sim, w.h, blktest.Pattern(0, bs, 5), 0, 0))
		w.h.Submit(&blk.Bio{Op: blk.Flush, End: func(*blk.Bio) { t.Error("a flush ended whose commit did not") }})
		sim.Run()
		if !h.written {
			t.Fatal("no superblock was written")
		}
		w.wrap = func(_ string, d blk.Device) blk.Device { return d }
		w.must(w.start(env.NewStepped()))
		w.wants(5)
		w.must(blk.FlushDevice(w.env, w.h))
		w = w.crash(seed)
		w.must(w.start(env.NewStepped()))
		w.wants(5)
		w.close()
	}
}

// wants reads the first block.
func (w *world) wants(seed uint64) {
	w.Helper()
	p := make([]byte, bs*blk.SectorSize)
	w.must(blk.ReadSectors(w.env, w.h, p, 0))
	w.must(blktest.Check(p, 0, seed))
}
