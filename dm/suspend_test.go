package dm

import (
	"context"
	"slices"
	"syscall"
	"testing"

	"udm/blk"
)

func TestSuspendHoldsBackAndResumeKeepsOrder(t *testing.T) {
	r := newRig(t)
	d := r.two()
	w := r.write(d, 0, 8)
	done := r.suspendTask(d, false)
	late := []*io{r.write(d, 8, 8), r.write(d, 0, 4), r.write(d, 4, 4)}
	if *done {
		t.Fatal("suspended with a write in flight")
	}
	r.release("g0")
	r.ended(w, blk.OK)
	if !*done || !d.Suspended() {
		t.Fatal("not suspended")
	}
	r.held("g0")
	r.open(late...)
	r.resume(d)
	r.held("g0", "write 8+8", "write 0+4", "write 4+4")
}

func TestSuspendedDeviceRefusesWhoCannotWait(t *testing.T) {
	r := newRig(t)
	d := r.two()
	r.suspendTask(d, false)
	r.ended(r.submit(d, blk.Read, blk.NoWait, 0, 8), blk.WouldBlock)
	r.ended(r.submit(d, blk.Read, blk.Readahead, 0, 8), blk.IOErr)
	r.resume(d)
}

func TestHookOrder(t *testing.T) {
	r := newRig(t)
	d := r.device("d", "0 8 script g0 0")
	s := script(d, 0)
	w := r.write(d, 0, 8)
	done := r.suspendTask(d, false)
	if !slices.Equal(s.log, []string{"preresume", "resume", "presuspend"}) {
		t.Fatalf("before the drain: %v", s.log)
	}
	r.release("g0")
	r.ended(w, blk.OK)
	if !*done || s.log[len(s.log)-1] != "postsuspend" {
		t.Fatalf("after the drain: %v", s.log)
	}
	r.must(d.Suspend(ctx, false)) // twice is allowed and does nothing
	r.load(d, "0 8 script g1 0")
	r.resume(d)
	if s.log[len(s.log)-1] != "close" || slices.Contains(s.log[3:], "resume") {
		t.Fatalf("the old table: %v", s.log)
	}
}

func TestInterruptedSuspend(t *testing.T) {
	r := newRig(t)
	d := r.device("d", "0 16 script g0 0")
	w := r.write(d, 0, 8)
	cancelled, cancel := context.WithCancel(ctx)
	var err error
	r.sim.Go("suspend", func() { err = d.Suspend(cancelled, false) })
	r.sim.Run()
	late := r.write(d, 8, 8)
	r.held("g0", "write 0+8")
	cancel()
	r.sim.Run()
	if ErrnoOf(err) != syscall.EINTR || d.Suspended() {
		t.Fatalf("got %v, suspended %v", err, d.Suspended())
	}
	if log := script(d, 0).log; log[len(log)-1] != "undo" {
		t.Fatalf("hooks: %v", log)
	}
	r.held("g0", "write 0+8", "write 8+8")
	r.gate("g0").ReleaseAll()
	r.ended(w, blk.OK)
	r.ended(late, blk.OK)
}

func TestInternalSuspendCountsAndNests(t *testing.T) {
	r := newRig(t)
	d := r.two()
	r.gate("g0").Open()
	d.InternalSuspend()
	d.InternalSuspend()
	x := r.write(d, 0, 8)
	d.InternalResume()
	r.open(x)
	done := r.suspendTask(d, false)
	if *done {
		t.Fatal("the user's suspend does not wait for the internal one")
	}
	d.InternalResume()
	r.sim.Run()
	if !*done {
		t.Fatal("the user's suspend still waits")
	}
	d.InternalSuspend() // within the user's: nothing more to stop
	d.InternalResume()
	if x.ends == 0 {
		r.open(x)
	}
	r.resume(d)
	r.ended(x, blk.OK)
}

func TestQuietStopsIOAndLetsItGoOn(t *testing.T) {
	r := newRig(t)
	d := r.two()
	r.gate("g0").Open()
	var x *io
	d.Quiet(func() {
		x = &io{}
		x.Op, x.Sector = blk.Write, 0
		x.SetData(make([]byte, 512))
		x.End = func(*blk.Bio) { x.ends++ }
		d.Submit(&x.Bio)
		if x.ends != 0 || !d.idleNow() {
			t.Error("I/O went through a quiet device")
		}
	})
	r.ended(x, blk.OK)
}

// The rest of a bio is mapped by the table that is live at that time.
func TestRestOfABioGoesThroughTheNewTable(t *testing.T) {
	r := newRig(t)
	d := r.device("d", "0 16 script g0 8")
	done := new(bool)
	s := script(d, 0)
	s.plan = func(c *Clone) Outcome {
		s.plan = nil
		// A suspend begins between the first piece and the second.
		r.sim.Go("suspend", func() { r.must(d.Suspend(ctx, false)); *done = true })
		d.mu.Lock()
		d.state.blocked = true
		d.fast.Store(nil)
		d.mu.Unlock()
		return Remapped
	}
	x := r.write(d, 0, 16)
	r.held("g0", "write 0+8")
	r.release("g0")
	if !*done {
		t.Fatal("not suspended")
	}
	r.open(x)
	r.load(d, "0 16 shift g1")
	r.resume(d)
	r.held("g0")
	r.held("g1", "write 8+8")
	r.release("g1")
	r.ended(x, blk.OK)
}

func TestRemovalFailsWhatWaits(t *testing.T) {
	r := newRig(t)
	d := r.two()
	r.suspendTask(d, false)
	x, b := r.write(d, 0, 8), r.barrier(d, 8, 8)
	_, err := d.Remove(false)
	r.must(err)
	r.ended(x, blk.IOErr)
	r.ended(b, blk.IOErr)
	r.ended(r.write(d, 0, 8), blk.IOErr)
}

func TestDeviceWithoutTableHoldsBios(t *testing.T) {
	r := newRig(t)
	d, err := r.c.Create("d", "", -1)
	r.must(err)
	r.gate("g0").Open()
	x := r.write(d, 0, 8)
	r.open(x)
	r.must(d.Resume(ctx, false)) // nothing to resume
	r.open(x)
	r.load(d, "0 8 shift g0")
	r.resume(d)
	r.ended(x, blk.OK)
}

func TestBeyondTheEnd(t *testing.T) {
	r := newRig(t)
	d := r.two()
	r.gate("g1").Open()
	r.ended(r.write(d, 32, 8), blk.IOErr)
	r.ended(r.write(d, 28, 8), blk.IOErr)
	r.ended(r.submit(d, blk.Discard, 0, 32, 8), blk.IOErr)
	r.ended(r.submit(d, blk.WriteZeroes, 0, 0, 8), blk.NotSupported)
}

// When a suspend has ended, every End has run: a bio counts as in flight during its End.
func TestInFlightUntilEndHasRun(t *testing.T) {
	r := newRig(t)
	d := r.two()
	x := &io{}
	x.Op = blk.Write
	x.SetData(make([]byte, 512))
	counted := false
	x.End = func(*blk.Bio) { counted = !d.idleNow() }
	d.Submit(&x.Bio)
	r.release("g0")
	if !counted || !d.idleNow() {
		t.Fatalf("in flight during End: %v; after: %v", counted, !d.idleNow())
	}
}
