package dm

import (
	"testing"

	"udm/blk"
	"udm/blk/blktest"
)

// three is a device of three pieces of 8 sectors on g0, cut by MaxIOLen.
func (r *rig) three() *Device { return r.device("three", "0 64 script g0 8") }

// requeueMap pushes clones at a sector back at Map.
func requeueMap(sector uint64) func(*Clone) Outcome {
	return func(c *Clone) Outcome {
		if c.Sector == sector {
			return Requeue
		}
		return Remapped
	}
}

func TestRequeueOneOfThreePieces(t *testing.T) {
	r := newRig(t)
	d := r.three()
	script(d, 0).onEnd = endRequeue(8)
	x := r.write(d, 0, 24)
	done := r.suspendTask(d, true)
	r.gate("g0").Release(1)
	r.open(x)
	if *done {
		t.Fatal("suspended while pieces are in flight")
	}
	r.release("g0")
	if *done {
		t.Fatal("suspended while a piece is in flight")
	}
	r.release("g0")
	if !*done {
		t.Fatal("not suspended")
	}
	r.open(x)
	script(d, 0).onEnd = nil
	r.gate("g0").Forget()
	r.resume(d)
	r.held("g0", "write 8+8")
	r.release("g0")
	r.ended(x, blk.OK)
	r.content("g0", 0, 24, 0)
}

// endRequeue pushes clones at a sector back at their end.
func endRequeue(sectors ...uint64) func(*Clone, blk.Status) (blk.Status, EndOutcome) {
	return func(c *Clone, st blk.Status) (blk.Status, EndOutcome) {
		for _, s := range sectors {
			if c.Sector == s {
				return st, EndRequeue
			}
		}
		return st, EndDone
	}
}

// A piece that Map pushes back while a suspend is being requested.
func TestRequeueAtMap(t *testing.T) {
	r := newRig(t)
	d := r.three()
	script(d, 0).plan = func(c *Clone) Outcome {
		if c.Sector != 8 {
			return Remapped
		}
		d.setNoflushing(true) // the suspend has begun and not yet blocked I/O
		return Requeue
	}
	x := r.write(d, 0, 24)
	r.held("g0", "write 0+8", "write 16+8")
	script(d, 0).plan = nil
	done := r.suspendTask(d, true)
	if *done {
		t.Fatal("suspended with pieces in flight")
	}
	r.release("g0")
	r.release("g0")
	r.open(x)
	if !*done {
		t.Fatal("not suspended")
	}
	r.resume(d)
	r.held("g0", "write 8+8")
	r.release("g0")
	r.ended(x, blk.OK)
	r.content("g0", 0, 24, 0)
}

func TestRequeueOfFirstAndLastPiece(t *testing.T) {
	r := newRig(t)
	d := r.three()
	script(d, 0).onEnd = endRequeue(0, 16)
	x := r.write(d, 0, 24)
	done := r.suspendTask(d, true)
	for range 3 {
		r.release("g0")
	}
	if !*done {
		t.Fatal("not suspended")
	}
	r.open(x)
	script(d, 0).onEnd = nil
	r.gate("g0").Forget()
	r.resume(d)
	if got := len(r.gate("g0").Held()); got != 2 {
		t.Fatalf("%d requests after resume, want those of pieces 1 and 3", got)
	}
	r.release("g0")
	r.open(x)
	r.release("g0")
	r.ended(x, blk.OK)
	r.content("g0", 0, 24, 0)
}

func TestRequeueOutsideNoflushSuspendIsAnError(t *testing.T) {
	for _, unsplit := range []bool{false, true} {
		r := newRig(t)
		d := r.three()
		script(d, 0).plan = requeueMap(8)
		if unsplit {
			r.ended(r.write(d, 8, 8), blk.IOErr)
			continue
		}
		x := r.write(d, 0, 24)
		r.held("g0", "write 0+8", "write 16+8")
		r.release("g0")
		r.release("g0")
		r.ended(x, blk.IOErr)
		r.content("g0", 0, 8, 0)
		r.content("g0", 16, 8, 0)
	}
}

func TestRequeueTwice(t *testing.T) {
	r := newRig(t)
	d := r.three()
	x := r.write(d, 0, 24)
	for range 2 {
		script(d, 0).onEnd = endRequeue(8)
		done := r.suspendTask(d, true)
		r.gate("g0").ReleaseAll()
		r.sim.Run()
		if !*done {
			t.Fatal("not suspended")
		}
		r.open(x)
		r.resume(d)
		r.held("g0", "write 8+8")
	}
	script(d, 0).onEnd = nil
	r.release("g0")
	r.ended(x, blk.OK)
	r.content("g0", 0, 24, 0)
}

// An unsplit bio that is pushed back is deferred itself, without a clone.
func TestUnsplitRequeueClonesNothing(t *testing.T) {
	r := newRig(t)
	d := r.three()
	x := r.write(d, 8, 8)
	script(d, 0).onEnd = endRequeue(8)
	done := r.suspendTask(d, true)
	r.release("g0")
	if !*done || d.waiting.pop() != &x.Bio {
		t.Fatal("the bio itself is not what was deferred")
	}
	d.waiting.push(&x.Bio)
	script(d, 0).onEnd = nil
	r.resume(d)
	r.release("g0")
	r.ended(x, blk.OK)
}

func TestRequeueAcrossOddBuffers(t *testing.T) {
	r := newRig(t)
	d := r.three()
	all := blktest.Pattern(0, 24, 1)
	x := &io{}
	x.Op = blk.Write
	var bufs [][]byte
	for p := all; len(p) > 0; {
		for _, n := range []int{512, 3584, 1024, 100, 411, 1} {
			n = min(n, len(p))
			bufs, p = append(bufs, p[:n:n]), p[n:]
		}
	}
	x.SetBufs(bufs, 24)
	r.send(d, x)
	script(d, 0).onEnd = endRequeue(0, 8, 16)
	done := r.suspendTask(d, true)
	r.mems["g0"].Submit(&blk.Bio{Op: blk.WriteZeroes, Sectors: 24, End: func(*blk.Bio) {}})
	for range 3 {
		r.fail("g0", blk.OK) // ends well without having happened
	}
	if !*done {
		t.Fatal("not suspended")
	}
	script(d, 0).onEnd = nil
	r.resume(d)
	r.gate("g0").ReleaseAll()
	r.ended(x, blk.OK)
	r.content("g0", 0, 24, 0)
}

func TestRequeuedDiscard(t *testing.T) {
	r := newRig(t)
	d := r.device("d", "0 8 script g0 0", "8 8 script g0 0")
	script(d, 8).onEnd = endRequeue(8)
	script(d, 0).onEnd = endRequeue(0)
	x := r.submit(d, blk.Discard, 0, 4, 8)
	script(d, 0).onEnd = endRequeue(4)
	r.held("g0", "discard 4+4", "discard 8+4")
	done := r.suspendTask(d, true)
	r.release("g0")
	r.release("g0")
	if !*done {
		t.Fatal("not suspended")
	}
	script(d, 0).onEnd, script(d, 8).onEnd = nil, nil
	r.resume(d)
	r.gate("g0").ReleaseAll()
	r.ended(x, blk.OK)
	if got := r.gate("g0").Trace(); got != "discard 4+4\ndiscard 8+4\ndiscard 8+4\ndiscard 4+4\n" &&
		got != "discard 4+4\ndiscard 8+4\ndiscard 4+4\ndiscard 8+4\n" {
		t.Fatalf("ranges sent:\n%s", got)
	}
}

// One piece fails and another is pushed back: the error is kept, and the piece is still
// submitted again.
func TestRequeueBesideAnError(t *testing.T) {
	r := newRig(t)
	d := r.three()
	script(d, 0).onEnd = endRequeue(8)
	x := r.write(d, 0, 24)
	done := r.suspendTask(d, true)
	r.fail("g0", blk.IOErr)
	r.release("g0")
	r.release("g0")
	if !*done {
		t.Fatal("not suspended")
	}
	script(d, 0).onEnd = nil
	r.resume(d)
	r.held("g0", "write 8+8")
	r.open(x)
	r.release("g0")
	r.ended(x, blk.IOErr)
}

func TestPartialAcceptance(t *testing.T) {
	r := newRig(t)
	d := r.device("d", "0 10 partial g0 3", "10 10 partial g1 20")
	r.gate("g0").Open()
	r.gate("g1").Open()
	r.ended(r.write(d, 1, 17), blk.OK)
	if got := r.gate("g0").Trace(); got != "write 1+3\nwrite 4+3\nwrite 7+3\n" {
		t.Fatalf("g0 saw\n%s", got)
	}
	if got := r.gate("g1").Trace(); got != "write 10+8\n" {
		t.Fatalf("g1 saw\n%s", got)
	}
	r.content("g0", 1, 9, 1)
	r.content("g1", 10, 8, 1)
	r.ended(r.write(d, 0, 3), blk.OK)
	r.ended(r.write(d, 0, 4), blk.OK)
	r.content("g0", 0, 4, 0)
}

// Bios that are pushed back were submitted before those that wait, and go first.
func TestRequeuedGoesBeforeDeferred(t *testing.T) {
	r := newRig(t)
	d := r.three()
	script(d, 0).onEnd = endRequeue(0)
	x := r.write(d, 0, 8)
	r.suspendTask(d, true)
	late := r.write(d, 8, 8)
	r.release("g0")
	script(d, 0).onEnd = nil
	r.resume(d)
	r.held("g0", "write 0+8", "write 8+8")
	r.gate("g0").ReleaseAll()
	r.ended(x, blk.OK)
	r.ended(late, blk.OK)
}

// Of several clones of one piece, one fails after another was pushed back: the piece is
// submitted again.
func TestRequeueSupersedesErrors(t *testing.T) {
	r := newRig(t)
	d := r.device("d", "0 16 script g0 0")
	d.Target(0).NumDiscard = 2
	script(d, 0).onEnd = func(c *Clone, st blk.Status) (blk.Status, EndOutcome) {
		if c.Num == 0 {
			return st, EndRequeue
		}
		return st, EndDone
	}
	x := r.submit(d, blk.Discard, 0, 0, 8)
	r.suspendTask(d, true)
	r.release("g0")
	r.fail("g0", blk.IOErr)
	r.open(x)
	script(d, 0).onEnd = nil
	r.resume(d)
	r.gate("g0").ReleaseAll()
	r.ended(x, blk.OK)
}

// While a noflush suspend begins, the worker leaves alone what was pushed back.
func TestWorkerRestsWhileBiosArePushedBack(t *testing.T) {
	r := newRig(t)
	d := r.three()
	calls := 0
	script(d, 0).plan = func(*Clone) Outcome {
		if calls++; calls < 100 {
			return Requeue
		}
		return Remapped
	}
	d.setNoflushing(true) // and bios are not kept out yet
	x := r.write(d, 0, 8)
	d.queue.Queue(d.send)
	r.open(x)
	if calls != 1 {
		t.Fatalf("sent %d times", calls)
	}
	script(d, 0).plan = nil
	d.setNoflushing(false)
	d.queue.Queue(d.send)
	r.held("g0", "write 0+8")
	r.release("g0")
	r.ended(x, blk.OK)
}
