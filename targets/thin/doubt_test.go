package thin

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
		sim := env.NewStepped()
		w := newBusyPool(t, sim)
		h := &hung{Device: w.meta}
		w.wrap = func(name string, d blk.Device) blk.Device {
			if name == "m" {
				return h
			}
			return d
		}
		w.must(w.start())
		v, err := w.create(1, false, nil)
		w.must(err)
		w.must(blk.FlushDevice(sim, v.dev))
		h.on = true
		w.must(blk.WriteSectors(sim, v.dev, blktest.Pattern(0, bs, 5), 0, 0))
		v.dev.Submit(&blk.Bio{Op: blk.Flush, End: func(*blk.Bio) { t.Error("a flush ended whose commit did not") }})
		sim.Run()
		if !h.written {
			t.Fatal("no superblock was written")
		}
		w = w.again(t, w.meta, w.data)
		w.must(w.start())
		w.wants(v.id, 5)
		w.must(blk.FlushDevice(w.e, w.vols[1].dev))
		w = w.again(t, w.meta.CrashClone(seed), w.data.CrashClone(seed+1))
		w.must(w.start())
		w.wants(v.id, 5)
		w.stop()
	}
}

// wants opens a volume and reads its first block.
func (w *busyPool) wants(id int, seed uint64) {
	w.Helper()
	v := w.vols[id]
	w.must(w.open(v))
	p := make([]byte, bs*blk.SectorSize)
	w.must(blk.ReadSectors(w.e, v.dev, p, 0))
	w.must(blktest.Check(p, 0, seed))
}
