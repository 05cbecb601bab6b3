package era_test

import (
	"testing"

	"udm/blk"
	"udm/blk/blktest"
	"udm/targets/era"
	"udm/targets/era/eratools"
)

// broken is a disk some of whose bios fail.
type broken struct {
	blk.Device
	fails func(*blk.Bio) bool
}

func (d *broken) Submit(b *blk.Bio) {
	if d.fails(b) {
		b.Complete(blk.IOErr)
		return
	}
	d.Device.Submit(b)
}

// breaks makes bios of the metadata device fail.
func (d *disks) breaks(fails func(*blk.Bio) bool) {
	d.wrap = func(x blk.Device) blk.Device {
		if x == d.mems["a"] {
			return &broken{x, fails}
		}
		return x
	}
}

func (x *device) put(block uint64) error {
	return blk.WriteSectors(x.sim, x, blktest.Pattern(block*16, 8, 1), block*16, 0)
}

// TestMarksOfDoubtfulSuperblocks: the superblock that has the mark of a write is written,
// but not flushed, so the write fails. When it is tried again, the mark is durable first.
func TestMarksOfDoubtfulSuperblocks(t *testing.T) {
	for seed := range uint64(8) {
		d, bad, written := newDisks(), false, false
		d.breaks(func(b *blk.Bio) bool {
			written = written || bad && b.Op == blk.Write && b.Sector == 0
			return bad && written && b.Op == blk.Flush
		})
		x := mustStart(t, d)
		bad = true
		if x.put(3) == nil {
			t.Fatal("a write went well whose mark is not durable")
		}
		bad = false
		if err := x.put(3); err != nil {
			t.Fatal(err)
		}
		told := false
		err := eratools.WrittenSince(simOf(), d.crash(seed).mems["a"], 1, false, func(begin, end uint32) error {
			told = told || begin <= 3 && 3 < end
			return nil
		})
		if err != nil || !told {
			t.Fatal("after a power cut the metadata do not tell of a write", err)
		}
	}
}

// TestFailedMetadataHaveNoEra: a checkpoint reaches the disk, and nobody can know. Writes go
// on in the era before, so nobody may be told that another one runs.
func TestFailedMetadataHaveNoEra(t *testing.T) {
	d, bad, written := newDisks(), false, false
	d.breaks(func(b *blk.Bio) bool {
		was := written
		written = written || bad && b.Op == blk.Write && b.Sector == 0
		return bad && was && (b.Op == blk.Flush || b.Op == blk.Read && b.Sector != 0)
	})
	x := mustStart(t, d)
	if err := x.put(3); err != nil {
		t.Fatal(err)
	}
	at, err := era.Era(x.Device)
	if err != nil {
		t.Fatal(err)
	}
	bad = true
	if _, err := x.Message(0, "checkpoint"); err == nil {
		t.Fatal("a checkpoint went well that is not durable")
	}
	bad = false
	if err := x.put(3); err != nil {
		t.Fatal(err)
	}
	if n, err := era.Era(x.Device); err == nil && n > at {
		t.Fatalf("era %d runs, and a write was told of in era %d", n, at)
	}
}
