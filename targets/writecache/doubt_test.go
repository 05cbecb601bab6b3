package writecache_test

import (
	"context"
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

// refusing is a disk whose writes fail while on.
type refusing struct {
	blk.Device
	on bool
}

func (d *refusing) Submit(b *blk.Bio) {
	if d.on && b.Op.IsWrite() {
		b.Complete(blk.IOErr)
		return
	}
	d.Device.Submit(b)
}

// TestNewCacheBeginsAnew: a table takes over what the one before could not commit, but not
// if its user has made a new cache meanwhile.
func TestNewCacheBeginsAnew(t *testing.T) {
	for name, anew := range map[string]bool{"the same cache": false, "a new one": true} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, tables["lazy"])
			bad := &refusing{Device: kept{w.disks["b"]}}
			w.wrap = func(name string, d blk.Device) blk.Device {
				if name == "b" {
					return bad
				}
				return d
			}
			w.must(w.start(env.NewStepped()))
			w.must(blk.WriteSectors(w.env, w.h, blktest.Pattern(0, 8, 5), 0, 0))
			bad.on = true
			w.must(w.dev.Suspend(context.Background(), false))
			bad.on = false
			want := uint64(5)
			if anew {
				w.must(blk.WriteSectors(w.env, w.disks["b"], make([]byte, 4096), 0, 0))
				want = 0
			}
			w.must(w.load(w.table))
			w.wants(want)
			w.close()
		})
	}
}

// wants reads the first block.
func (w *world) wants(seed uint64) {
	w.Helper()
	p := make([]byte, 8*blk.SectorSize)
	w.must(blk.ReadSectors(w.env, w.h, p, 0))
	w.must(blktest.Check(p, 0, seed))
}
