package snapshot

import (
	"context"
	"testing"

	"udm/blk"
	"udm/dm"
)

func lines(sectors uint64, typ, params string) []dm.Spec {
	return []dm.Spec{{Len: sectors, Type: typ, Params: params}}
}

// The table of a clone moves to a device below it, as for a snapshot of the
// clone, and back; exceptions and I/O with it.
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

// When the second table does not load, the exceptions are back.
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
