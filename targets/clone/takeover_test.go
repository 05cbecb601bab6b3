package clone_test

import (
	"context"
	"fmt"
	"testing"

	"udm/blk"
	"udm/blk/blktest"
	"udm/dm"
	"udm/env"
)

// broken is a disk some of whose bios fail.
type broken struct {
	blk.Device
	status func(*blk.Bio) blk.Status
}

func (d *broken) Submit(b *blk.Bio) {
	if st := d.status(b); st != blk.OK {
		b.Complete(st)
		return
	}
	d.Device.Submit(b)
}

// breaks makes bios of one disk fail as long as *on.
func (d *disks) breaks(name string, on *bool, status func(*blk.Bio) blk.Status) {
	d.wrap = func(x blk.Device) blk.Device {
		if x != d.mems[name] {
			return x
		}
		return &broken{x, func(b *blk.Bio) blk.Status {
			if *on {
				return status(b)
			}
			return blk.OK
		}}
	}
}

func (x *device) load(t *testing.T, table string) {
	t.Helper()
	specs, err := dm.ParseTable(table)
	if err == nil {
		err = x.Load(specs, dm.Mode{Write: true})
	}
	if err != nil {
		t.Fatal(err)
	}
}

func (x *device) put(t *testing.T, sector, sectors, version uint64, flags blk.Flags) error {
	t.Helper()
	return blk.WriteSectors(x.sim, x, blktest.Pattern(sector, sectors, version), sector, flags)
}

func (x *device) want(t *testing.T, sector, sectors, version uint64) {
	t.Helper()
	p := make([]byte, sectors*blk.SectorSize)
	if err := blk.ReadSectors(x.sim, x, p, sector); err != nil {
		t.Fatal(err)
	}
	if err := blktest.Check(p, sector, version); err != nil {
		t.Fatal(err)
	}
}

// TestNextTableTakesOver has commits fail until the next table is there, or the one after
// that, because the next one cannot read the metadata. What was written is read then, and
// is durable after a flush.
func TestNextTableTakesOver(t *testing.T) {
	for _, c := range []struct {
		name, disk string
		op         blk.Op
		status     blk.Status
	}{{"no space for metadata", "a", blk.Write, blk.NoSpace}, {"metadata not written", "a", blk.Write, blk.IOErr}, {"destination not flushed", "b", blk.Flush, blk.IOErr}} {
		for _, again := range []bool{false, true} {
			t.Run(fmt.Sprint(c.name, again), func(t *testing.T) {
				d, bad := newDisks(t), false
				d.breaks(c.disk, &bad, func(b *blk.Bio) blk.Status {
					if b.Op == c.op || again && b.Op == blk.Read {
						return c.status
					}
					return blk.OK
				})
				x := mustStart(t, d, tables[1])
				if err := x.put(t, 0, 32, 1, blk.FUA); err != nil {
					t.Fatal(err)
				}
				x.load(t, tables[1])
				bad = true
				if err := x.put(t, 64, 32, 2, 0); err != nil {
					t.Fatal(err)
				}
				if err := x.Resume(context.Background(), false); (err != nil) != (again && c.disk == "a") {
					t.Fatal(err)
				}
				bad = false
				if again {
					x.load(t, tables[1])
					if err := x.Resume(context.Background(), false); err != nil {
						t.Fatal(err)
					}
				}
				x.want(t, 64, 32, 2)
				x.want(t, 128, 32, origin)
				if err := blk.FlushDevice(x.sim, x); err != nil {
					t.Fatal(err)
				}
				d = d.crash(1)
				sound(t, d)
				x = mustStart(t, d, tables[1])
				x.want(t, 0, 32, 1)
				x.want(t, 64, 32, 2)
				x.want(t, 128, 32, origin)
			})
		}
	}
}

// TestNewMetadataBeginAnew: who zeroes the metadata under a suspended device means it.
func TestNewMetadataBeginAnew(t *testing.T) {
	d, bad := newDisks(t), false
	d.breaks("a", &bad, func(b *blk.Bio) blk.Status {
		if b.Op == blk.Write {
			return blk.NoSpace
		}
		return blk.OK
	})
	x := mustStart(t, d, tables[1])
	bad = true
	if err := x.put(t, 64, 32, 2, 0); err != nil {
		t.Fatal(err)
	}
	if err := x.Suspend(context.Background(), false); err != nil {
		t.Fatal(err)
	}
	bad = false
	if err := blk.WriteSectors(env.Real(), d.mems["a"], make([]byte, 4096), 0, blk.FUA); err != nil {
		t.Fatal(err)
	}
	x.load(t, tables[1])
	if err := x.Resume(context.Background(), false); err != nil {
		t.Fatal(err)
	}
	x.want(t, 64, 32, origin)
}

// TestWhatWasReadIsDurable has the flush of a superblock fail. Who reads it after that,
// the next table or the next process, and flushes, keeps what it says after a power cut.
func TestWhatWasReadIsDurable(t *testing.T) {
	for _, killed := range []bool{false, true} {
		for seed := range uint64(8) {
			d, bad, written := newDisks(t), false, false
			d.breaks("a", &bad, func(b *blk.Bio) blk.Status {
				written = written || b.Op == blk.Write && b.Sector == 0
				if b.Op == blk.Flush && written {
					return blk.IOErr
				}
				return blk.OK
			})
			x := mustStart(t, d, tables[1])
			x.load(t, tables[1])
			bad = true
			if err := x.put(t, 64, 32, 2, blk.FUA); err == nil {
				t.Fatal("a write is durable whose superblock is not")
			}
			bad = false
			if killed {
				x = mustStart(t, d, tables[1])
			} else if err := x.Resume(context.Background(), false); err != nil {
				t.Fatal(err)
			}
			x.want(t, 64, 32, 2)
			if err := blk.FlushDevice(x.sim, x); err != nil {
				t.Fatal(err)
			}
			x = mustStart(t, d.crash(seed), tables[1])
			x.want(t, 64, 32, 2)
		}
	}
}
