package dm

import (
	"testing"

	"udm/blk"
)

// two is a device whose sectors 0+16 are on g0 and 16+16 on g1.
func (r *rig) two() *Device { return r.device("two", "0 16 shift g0", "16 16 shift g1") }

func TestBarrierOrder(t *testing.T) {
	r := newRig(t)
	d := r.two()
	w1, w2 := r.write(d, 0, 8), r.write(d, 16, 8)
	b := r.barrier(d, 12, 8)
	w3 := r.write(d, 8, 4)
	r.held("g0", "write 0+8")
	r.held("g1", "write 0+8")
	r.release("g1")
	r.ended(w2, blk.OK)
	r.held("g0", "write 0+8")
	r.held("g1")
	r.release("g0")
	r.ended(w1, blk.OK)
	r.held("g0", "write 12+4") // without the flag, and w3 not seen
	r.held("g1", "write 0+4")
	r.release("g0")
	r.open(b, w3)
	r.held("g0")
	r.release("g1")
	r.ended(b, blk.OK)
	r.held("g0", "write 8+4")
	r.release("g0")
	r.ended(w3, blk.OK)
	if d.fast.Load() == nil {
		t.Fatal("still in order although nothing waits")
	}
}

func TestBarrierErrorIsItsOwn(t *testing.T) {
	r := newRig(t)
	d := r.two()
	b := r.barrier(d, 12, 8)
	w := r.write(d, 0, 8)
	next := r.barrier(d, 16, 8)
	r.fail("g0", blk.IOErr)
	r.open(b)
	r.release("g1")
	r.ended(b, blk.IOErr)
	r.release("g0")
	r.ended(w, blk.OK)
	r.release("g1")
	r.ended(next, blk.OK)
}

func TestEmptyBarrier(t *testing.T) {
	r := newRig(t)
	d := r.two()
	r.ended(r.barrier(d, 0, 0), blk.OK)
	if n := len(r.gate("g0").Submitted()) + len(r.gate("g1").Submitted()); n != 0 {
		t.Fatalf("an empty barrier made %d lower requests", n)
	}
	w := r.write(d, 0, 8)
	b := r.barrier(d, 0, 0)
	r.open(b)
	r.release("g0")
	r.ended(w, blk.OK)
	r.ended(b, blk.OK)
}

func TestBarrierKeepsItsPlaceOverSuspend(t *testing.T) {
	r := newRig(t)
	d := r.two()
	w1 := r.write(d, 0, 8)
	b := r.barrier(d, 8, 8)
	w2 := r.write(d, 16, 8)
	done := r.suspendTask(d, false)
	if *done {
		t.Fatal("suspended with a write in flight")
	}
	r.release("g0")
	r.ended(w1, blk.OK)
	if !*done {
		t.Fatal("not suspended although nothing is in flight")
	}
	r.open(b, w2)
	r.held("g0")
	r.held("g1")
	w3 := r.write(d, 24, 8)
	r.resume(d)
	r.held("g0", "write 8+8")
	r.held("g1")
	r.release("g0")
	r.ended(b, blk.OK)
	r.held("g1", "write 0+8", "write 8+8")
	r.release("g1")
	r.release("g1")
	r.ended(w2, blk.OK)
	r.ended(w3, blk.OK)
}

func TestBarriersNeverOverlap(t *testing.T) {
	r := newRig(t)
	d := r.two()
	b1, w, b2 := r.barrier(d, 0, 8), r.write(d, 16, 8), r.barrier(d, 8, 8)
	r.held("g0", "write 0+8")
	r.held("g1")
	r.release("g0")
	r.ended(b1, blk.OK)
	r.held("g0")
	r.held("g1", "write 0+8")
	r.release("g1")
	r.ended(w, blk.OK)
	r.held("g0", "write 8+8")
	r.open(b2)
	r.release("g0")
	r.ended(b2, blk.OK)
}

func TestBarrierPushedBackIsSentAgainFirst(t *testing.T) {
	r := newRig(t)
	d := r.device("d", "0 16 script g0 8")
	w1 := r.write(d, 0, 8)
	b := r.barrier(d, 0, 16)
	w2 := r.write(d, 8, 8)
	r.release("g0")
	r.ended(w1, blk.OK)
	r.held("g0", "write 0+8", "write 8+8")
	script(d, 0).onEnd = func(c *Clone, st blk.Status) (blk.Status, EndOutcome) { return st, EndRequeue }
	done := r.suspendTask(d, true)
	r.release("g0")
	r.release("g0")
	r.open(b, w2)
	if !*done {
		t.Fatal("not suspended")
	}
	script(d, 0).onEnd = nil
	r.resume(d)
	r.held("g0", "write 0+8", "write 8+8")
	r.release("g0")
	r.release("g0")
	r.ended(b, blk.OK)
	r.held("g0", "write 8+8")
	r.release("g0")
	r.ended(w2, blk.OK)
}

// The modern order: a write with Preflush flushes every target first and drains
// nothing.
func TestPreflushGoesBeforeItsData(t *testing.T) {
	r := newRig(t)
	d := r.two()
	other := r.write(d, 0, 8)
	w := r.submit(d, blk.Write, blk.Preflush|blk.FUA, 12, 8)
	r.held("g0", "write 0+8", "flush 0+0")
	r.held("g1", "flush 0+0")
	r.gate("g0").Release(1)
	r.held("g0", "write 0+8")
	r.release("g1")
	r.held("g0", "write 0+8", "write 12+4 fua")
	r.held("g1", "write 0+4 fua")
	r.release("g1")
	r.gate("g0").Release(2)
	r.ended(w, blk.OK)
	r.open(other)
	r.release("g0")
	r.ended(other, blk.OK)
}

func TestFailedPreflushFailsTheWrite(t *testing.T) {
	r := newRig(t)
	d := r.two()
	w := r.submit(d, blk.Write, blk.Preflush, 0, 8)
	r.release("g0")
	r.fail("g1", blk.IOErr)
	r.ended(w, blk.IOErr)
	r.held("g0")
}

func TestBarrierWaitsForDataBehindPreflush(t *testing.T) {
	r := newRig(t)
	d := r.two()
	w := r.submit(d, blk.Write, blk.Preflush, 0, 8)
	b := r.barrier(d, 16, 8)
	r.release("g0")
	r.release("g1")
	r.held("g0", "write 0+8")
	r.held("g1")
	r.release("g0")
	r.ended(w, blk.OK)
	r.held("g1", "write 0+8")
	r.release("g1")
	r.ended(b, blk.OK)
}

func TestSuspendBetweenPreflushAndData(t *testing.T) {
	r := newRig(t)
	d := r.two()
	w := r.submit(d, blk.Write, blk.Preflush, 0, 8)
	done := r.suspendTask(d, false)
	r.release("g0")
	r.release("g1")
	if !*done {
		t.Fatal("not suspended although the flush is done")
	}
	r.held("g0")
	r.resume(d)
	r.held("g0", "write 0+8")
	r.release("g0")
	r.ended(w, blk.OK)
}

func TestSuspendBetweenABarriersPreflushAndItsData(t *testing.T) {
	r := newRig(t)
	d := r.two()
	b := r.submit(d, blk.Write, blk.Barrier|blk.Preflush, 0, 8)
	done := r.suspendTask(d, false)
	r.release("g0")
	r.release("g1")
	if !*done {
		t.Fatal("not suspended although the flush is done")
	}
	r.open(b)
	r.resume(d)
	r.release("g0")
	r.release("g1")
	r.held("g0", "write 0+8")
	r.release("g0")
	r.ended(b, blk.OK)
}

// The flags of a bio belong to its submitter: submitted again, it flushes again.
func TestPreflushStaysInTheBio(t *testing.T) {
	r := newAreaRig(t)
	d := r.device("d", "0 16 area g0 0")
	x := &io{}
	for _, op := range []blk.Op{blk.Write, blk.WriteZeroes, blk.Write} {
		x.Rearm()
		x.Op, x.Flags, x.Sector, x.ends = op, blk.Preflush|blk.FUA, 0, 0
		x.SetData(make([]byte, 8*blk.SectorSize))
		r.gate("g0").Forget()
		r.send(d, x)
		r.held("g0", "flush 0+0")
		r.release("g0")
		r.held("g0", op.String()+" 0+8 fua")
		r.release("g0")
		r.ended(x, blk.OK)
		if x.Flags != blk.Preflush|blk.FUA {
			t.Fatalf("after its end: %v", &x.Bio)
		}
	}
}
