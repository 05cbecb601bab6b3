package writecache_test

import (
	"testing"

	"udm/blk"
	"udm/blk/blktest"
	"udm/env"
)

// hung is a disk that writes a superblock to its volatile cache and does not answer. Before
// that the entries are written, which begin in the same block.
type hung struct {
	blk.Device
	on, entries, written bool
}

func (d *hung) Submit(b *blk.Bio) {
	if !d.on || b.Op != blk.Write || b.Sector != 0 {
		d.Device.Submit(b)
		return
	}
	if !d.entries {
		d.entries = true
		d.Device.Submit(b)
		return
	}
	d.written = true
	c := &blk.Bio{End: func(*blk.Bio) {}}
	c.CloneFrom(b)
	c.Flags &^= blk.FUA
	d.Device.Submit(c)
}

// TestWhatWasReadIsDurable kills the process before the superblock is durable. The next one
// finds what was written; after a flush it is there even if the power is cut.
func TestWhatWasReadIsDurable(t *testing.T) {
	for seed := range uint64(8) {
		w := newWorld(t, tables["lazy"])
		h := &hung{Device: kept{w.disks["b"]}}
		w.wrap = func(name string, d blk.Device) blk.Device {
			if name == "b" {
				return h
			}
			return d
		}
		sim := env.NewStepped()
		w.must(w.start(sim))
		w.must(blk.WriteSectors(sim, w.h, blktest.Pattern(8, 8, 4), 8, blk.FUA))
		w.must(blk.WriteSectors(sim, w.h, blktest.Pattern(0, 8, 5), 0, 0))
		h.on = true
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
	p := make([]byte, 8*blk.SectorSize)
	w.must(blk.ReadSectors(w.env, w.h, p, 0))
	w.must(blktest.Check(p, 0, seed))
}
