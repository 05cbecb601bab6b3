package snapshot

import (
	"context"
	"syscall"
	"testing"

	"udm/blk"
	"udm/blk/memdev"
	"udm/dm"
)

func lines(sectors uint64, typ, params string) []dm.Spec {
	return []dm.Spec{{Len: sectors, Type: typ, Params: params}}
}

// The table of a clone moves to a device below it, as when a snapshot of the clone is
// made, and back. Its exceptions and its I/O move with it.
func TestExchangeMovesExceptions(t *testing.T) {
	r := newGated(t, stepped(), 256, 512)
	s := r.device("s", 256, "snapshot O C P 8")
	r.wantEnd(r.write(s, 40, 8, 2), blk.OK)
	real, err := r.c.Create("real", "", -1)
	r.ok(err)
	rw := dm.Mode{Write: true}
	down := []dm.Change{
		{Device: s, Specs: lines(256, "snapshot-origin", "/dev/mapper/real"), Mode: rw},
		{Device: real, Specs: lines(256, "snapshot", "O C P 8"), Mode: rw},
	}
	r.ok(dm.Exchange(context.Background(), down))
	r.wantData(s, 40, 8, 2)
	r.wantEnd(r.write(s, 80, 8, 3), blk.OK)
	r.wantData(real, 80, 8, 3)
	r.ok(dm.Exchange(context.Background(), []dm.Change{
		{Device: real, Specs: lines(256, "snapshot-origin", "O"), Mode: rw},
		{Device: s, Specs: lines(256, "snapshot", "O C P 8"), Mode: rw},
	}))
	r.wantData(s, 40, 8, 2)
	r.wantData(s, 80, 8, 3)
	r.wantData(real, 80, 8, 1)
}

// If the second table does not load, the exceptions return to the first device.
func TestExchangeTakesExceptionsBack(t *testing.T) {
	r := newGated(t, stepped(), 256, 512)
	s := r.device("s", 256, "snapshot O C P 8")
	r.wantEnd(r.write(s, 40, 8, 2), blk.OK)
	info := r.info("s")
	real, err := r.c.Create("real", "", -1)
	r.ok(err)
	rw := dm.Mode{Write: true}
	if dm.Exchange(context.Background(), []dm.Change{
		{Device: s, Specs: lines(256, "snapshot-origin", "nosuch"), Mode: rw},
		{Device: real, Specs: lines(256, "snapshot", "O C P 8"), Mode: rw},
	}) == nil {
		t.Fatal("a table with a missing disk is taken")
	}
	r.wantInfo("s", info)
	r.wantData(s, 40, 8, 2)
	r.wantEnd(r.write(s, 80, 8, 3), blk.OK)
	r.wantData(s, 80, 8, 3)
}

// If the table of a device in between does not load, such as that of a new snapshot
// whose store has no space, the exceptions return to the device that was still to be
// exchanged.
func TestExchangeTakesExceptionsBackToTheLast(t *testing.T) {
	r, full := newFull(t, "P", 1<<20)
	s := r.dev("s")
	r.wantEnd(r.write(s, 40, 2, 2), blk.OK)
	info := r.info("s")
	full.takes = 0
	r.disks["D"] = &fullDisk{Device: memdev.New(2048)}
	real, err := r.c.Create("real", "", -1)
	r.ok(err)
	n, err := r.c.Create("new", "", -1)
	r.ok(err)
	rw := dm.Mode{Write: true}
	err = dm.Exchange(context.Background(), []dm.Change{
		{Device: s, Specs: lines(512, "snapshot-origin", "/dev/mapper/real"), Mode: rw},
		{Device: n, Specs: lines(512, "snapshot", "/dev/mapper/real D P 2"), Mode: rw},
		{Device: real, Specs: lines(512, "snapshot", "O C P 2"), Mode: rw},
	})
	wantErrno(t, err, syscall.ENOSPC)
	r.wantInfo("s", info)
	r.wantData(s, 40, 2, 2)
	full.takes = 1 << 20
	r.wantEnd(r.write(s, 80, 2, 3), blk.OK)
	r.wantData(s, 80, 2, 3)
}
