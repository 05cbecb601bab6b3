package all_test

import (
	"context"
	"strings"
	"syscall"
	"testing"

	"udm/blk"
	"udm/blk/blktest"
	"udm/blk/memdev"
	"udm/dm"
	"udm/env"
	"udm/targets/all"
)

// failingDisks opens memory disks by any name, which share a Failer.
type failingDisks struct {
	f     *blktest.Failer
	disks map[string]blk.Device
}

func (o *failingDisks) Open(name string, _ bool) (blk.Device, dm.Number, error) {
	if strings.HasPrefix(name, "/") {
		return nil, dm.Number{}, dm.Errorf(syscall.ENODEV, "no %s", name)
	}
	if o.disks[name] == nil {
		o.disks[name] = o.f.Wrap(memdev.New(4096, memdev.Volatile))
	}
	return o.disks[name], dm.Number{Major: 7, Minor: uint32(name[0])}, nil
}

// TestEachFailingIO lets every I/O below a device fail in turn. A failure is
// reported by the operation that had it, the others go well, and data that was
// acknowledged is there.
func TestEachFailingIO(t *testing.T) {
	for _, table := range []string{
		"0 64 linear a 3",
		"0 64 striped 4 4 a 0 b 0 c 0 d 0",
		"0 64 delay a 0 1 a 0 2 a 0 0",
		"0 64 flakey a 0 3600 0",
		"0 64 switch 2 5 0 a 0 b 0",
		"0 64 unstriped 2 4 1 a 0",
		"0 64 dust a 0 2048",
		"0 64 ebs a 16 1 16",
		"0 64 crypt aes-xts-plain64 " + cryptKey + " 0 a 0 1 allow_discards",
		"0 64 log-writes a b",
	} {
		t.Run(strings.Fields(table)[2], func(t *testing.T) {
			n := blktest.FailEach(t, func(t *testing.T, f *blktest.Failer) { failScenario(t, f, table) })
			t.Logf("%d I/Os", n)
		})
	}
}

func failScenario(t *testing.T, f *blktest.Failer, table string) {
	sim := env.NewStepped()
	o := &failingDisks{f, map[string]blk.Device{}}
	c := dm.NewControl(sim, o, all.Types()...)
	d, err := c.Create("d", "", -1)
	specs, _ := dm.ParseTable(table)
	if err == nil {
		err = d.Load(specs, dm.Mode{Write: true})
	}
	if err == nil {
		err = d.Resume(context.Background(), false)
	}
	if err != nil {
		t.Fatal(err)
	}
	failed := 0
	do := func(op blk.Op, flags blk.Flags, sector, sectors, seed uint64) bool {
		b := &blk.Bio{Op: op, Flags: flags, Sector: sector, Sectors: sectors}
		if op.HasData() {
			b.SetData(blktest.Pattern(sector, sectors, seed))
		}
		if st := blk.Do(sim, d, b); st != blk.OK && st != blk.NotSupported {
			failed++
			return false
		}
		if op == blk.Read {
			if err := blktest.Check(b.Bufs[0], sector, seed-blktest.MaxSeed/2); err != nil {
				t.Error(err)
			}
		}
		return true
	}
	first := do(blk.Write, 0, 0, 40, 1)
	second := do(blk.Write, blk.FUA, 40, 24, 2)
	do(blk.Flush, 0, 0, 0, 0)
	do(blk.Discard, 0, 60, 4, 0)
	do(blk.Write, blk.Preflush, 60, 4, 3)
	if first {
		do(blk.Read, 0, 2, 30, 1+blktest.MaxSeed/2)
	}
	if second {
		do(blk.Read, 0, 40, 20, 2+blktest.MaxSeed/2)
	}
	sim.Run()
	status := d.Lines(dm.Info, false, 0)[0].Params
	logFailed := strings.Contains(status, "logging_disabled")
	if f.Failed() != (failed > 0 || logFailed) {
		t.Errorf("%v: %d operations failed, status %s", f, failed, status)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}
