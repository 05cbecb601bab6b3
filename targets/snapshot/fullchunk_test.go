package snapshot

import (
	"testing"

	"udm/blk"
	"udm/dm"
)

// The promises of "skip reading origin when overwriting complete chunk".

// gatedSnap is a persistent snapshot s with chunk 8 behind shut gates, and its
// origin o.
func gatedSnap(t *testing.T) (r *rig, s, o *dm.Device) {
	r = newGated(t, stepped(), 256, 512)
	o = r.device("o", 256, "snapshot-origin O")
	s = r.device("s", 256, "snapshot O C P 8")
	r.forget()
	r.shut()
	t.Cleanup(func() { r.open(); r.snap("s").mustBeIdle(t) })
	return r, s, o
}

const areaWrite = "write 8+8 fua,preflush"

func TestFullWriteReadsNothing(t *testing.T) {
	r, s, _ := gatedSnap(t)
	w := r.write(s, 40, 8, 2)
	r.wantTrace("O")
	r.wantTrace("C", "write 16+8")
	r.release("C", blk.Write, 16)
	r.wantWaiting(w)
	r.wantTrace("C", "write 16+8", areaWrite)
	r.release("C", blk.Write, 8)
	r.wantEnd(w, blk.OK)
	r.wantInfo("s", "24/512 16")
}

func TestPartWriteCopiesFirst(t *testing.T) {
	r, s, _ := gatedSnap(t)
	w := r.write(s, 40, 7, 2)
	r.wantTrace("O", "read 40+8")
	r.wantTrace("C")
	r.release("O", blk.Read, 40)
	r.wantTrace("C", "write 16+8")
	r.release("C", blk.Write, 16)
	r.wantTrace("C", "write 16+8", areaWrite)
	r.release("C", blk.Write, 8)
	r.wantWaiting(w)
	r.wantTrace("C", "write 16+8", areaWrite, "write 16+7")
	r.release("C", blk.Write, 16)
	r.wantEnd(w, blk.OK)
}

func TestRecordsAreInOrderOfAllocation(t *testing.T) {
	r, s, _ := gatedSnap(t)
	a, b := r.write(s, 80, 8, 2), r.write(s, 8, 8, 3)
	r.release("C", blk.Write, 24)
	r.wantWaiting(a, b)
	r.wantTrace("C", "write 16+8", "write 24+8")
	r.release("C", blk.Write, 16)
	r.wantTrace("C", "write 16+8", "write 24+8", areaWrite)
	r.wantWaiting(a, b)
	r.release("C", blk.Write, 8)
	r.wantEnd(a, blk.OK)
	r.wantEnd(b, blk.OK)
	area := make([]byte, 512)
	r.open()
	r.ok(blk.ReadSectors(r.e, r.disks["C"], area, 8))
	for i, want := range [][2]uint64{{10, 2}, {1, 3}, {0, 0}} {
		if old, new := getEntry(area, uint64(i)); old != want[0] || new != want[1] {
			t.Errorf("entry %d is %d→%d, want %v", i, old, new, want)
		}
	}
}

func TestManyOutOfOrder(t *testing.T) {
	r := newGated(t, stepped(), 8192, 16384)
	s := r.device("s", 8192, "snapshot O C P 8")
	r.forget()
	r.shut()
	var ws []*io
	for i := range uint64(200) {
		ws = append(ws, r.write(s, i*8, 8, 2))
	}
	g := r.gates["C"]
	for i := 199; i >= 0; i-- {
		r.wantHeld("C", i+1)
		r.wantWaiting(ws...)
		g.Release(g.Held()[i].Index)
	}
	r.wantHeld("C", 1)
	r.open()
	for _, w := range ws {
		r.wantEnd(w, blk.OK)
	}
}

func TestFullWriteBehindACopyIsQueued(t *testing.T) {
	r, s, _ := gatedSnap(t)
	a, b := r.write(s, 40, 4, 2), r.write(s, 40, 8, 3)
	r.wantTrace("O", "read 40+8")
	r.wantTrace("C")
	r.release("O", blk.Read, 40)
	r.release("C", blk.Write, 16)
	r.release("C", blk.Write, 8)
	r.wantTrace("C", "write 16+8", areaWrite, "write 16+4", "write 16+8")
	r.open()
	r.wantEnd(a, blk.OK)
	r.wantEnd(b, blk.OK)
	r.wantTrace("O", "read 40+8")
	r.wantData(s, 40, 8, 3)
}

func TestFailedFullWriteDropsTheSnapshot(t *testing.T) {
	r, s, _ := gatedSnap(t)
	w := r.write(s, 40, 8, 2)
	nr := s.Status().EventNr
	r.fail("C", blk.Write, 16)
	r.wantWaiting(w)
	r.wantTrace("C", "write 16+8", "write 0+8 fua,preflush")
	r.wantInfo("s", "Invalid")
	r.release("C", blk.Write, 0)
	r.wantEnd(w, blk.IOErr) // not the device's own error
	if s.Status().EventNr != nr+1 {
		t.Error("no event")
	}
	r.open()
	p := make([]byte, 512)
	r.ok(blk.ReadSectors(r.e, r.disks["C"], p, 0))
	if h, fresh, err := parseHeader(p); err != nil || fresh || h.valid || h.sectors != 8 {
		t.Errorf("header %+v, %v", h, err)
	}
}

func TestReadsSeeTheOldUntilTheRecord(t *testing.T) {
	r, s, _ := gatedSnap(t)
	w := r.write(s, 40, 8, 2)
	r.release("C", blk.Write, 16)
	old := r.read(s, 40, 8)
	r.wantTrace("O", "read 40+8")
	r.release("O", blk.Read, 40)
	r.wantEnd(old, blk.OK)
	r.release("C", blk.Write, 8)
	r.wantEnd(w, blk.OK)
	r.open()
	r.wantTrace("O", "read 40+8")
	r.wantData(s, 40, 8, 2)
}

func TestOriginWriteWaitsForAFullWrite(t *testing.T) {
	r, s, o := gatedSnap(t)
	w := r.write(s, 40, 8, 2)
	ow := r.write(o, 42, 2, 3)
	r.wantTrace("O")
	r.release("C", blk.Write, 16)
	r.wantWaiting(w, ow)
	r.wantTrace("O")
	r.release("C", blk.Write, 8)
	r.wantEnd(w, blk.OK)
	r.wantTrace("O", "write 42+2")
	r.release("O", blk.Write, 42)
	r.wantEnd(ow, blk.OK)
	r.open()
	r.wantData(s, 40, 8, 2)
}

// A write that covers a chunk's length but not a chunk is cut by the core; one
// with FUA keeps the flag on its way.
func TestFullWriteWithFUA(t *testing.T) {
	r, s, _ := gatedSnap(t)
	w := r.start(s, blk.Write, 40, 8, 2, blk.FUA)
	r.wantTrace("C", "write 16+8 fua")
	r.open()
	r.wantEnd(w, blk.OK)
	u := r.write(s, 84, 8, 2)
	r.wantEnd(u, blk.OK)
	r.wantTrace("O", "read 80+8", "read 88+8")
}
