package snapshot

import (
	"errors"
	"syscall"
	"testing"

	"udm/blk"
)

func wantErrno(t *testing.T, err error, want syscall.Errno) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("got %v, want %v", err, want)
	}
}

func TestReloadHandsTheExceptionsOver(t *testing.T) {
	for _, kind := range []string{"P", "N"} {
		r := newGated(t, stepped(), 256, 512)
		o := r.device("o", 256, "snapshot-origin O")
		s := r.device("s", 256, "snapshot O C "+kind+" 8")
		r.wantEnd(r.write(s, 40, 8, 2), blk.OK)
		r.wantEnd(r.write(o, 80, 8, 3), blk.OK)
		info := r.info("s")
		old := r.snap("s")
		r.forget()
		r.ok(r.load("s", 256, "snapshot O C "+kind+" 16 1 discard_zeroes_cow"))
		r.wantTrace("C") // nothing is read
		if got := s.Lines(1, true, 0)[0].Params; got != "7:79 7:67 "+kind+" 0 1 discard_zeroes_cow" {
			t.Fatalf("waiting: %q", got)
		}
		wantErrno(t, r.load("s2", 256, "snapshot O C "+kind+" 8"), syscall.EINVAL)
		r.ok(r.resume("s"))
		r.wantInfo("s", info)
		if got := s.Lines(1, false, 0)[0].Params; got != "7:79 7:67 "+kind+" 8 1 discard_zeroes_cow" {
			t.Fatalf("after handover: %q", got)
		}
		old.mustBeIdle(t)
		r.wantData(s, 40, 8, 2)
		r.wantData(s, 80, 8, 1)
		r.wantEnd(r.write(o, 88, 8, 3), blk.OK)
		r.wantData(s, 88, 8, 1)
	}
}

func TestHandoverNeedsASuspendedSource(t *testing.T) {
	r := newGated(t, stepped(), 256, 512)
	s := r.device("s", 256, "snapshot O C P 8")
	r.wantEnd(r.write(s, 40, 8, 2), blk.OK)
	r.ok(r.load("d", 256, "snapshot O C PO 8"))
	wantErrno(t, r.resume("d"), syscall.EINVAL)
	r.suspend("s")
	wantErrno(t, r.resume("s"), syscall.EINVAL) // the source of a waiting one
	r.ok(r.resume("d"))
	r.wantInfo("s", "Invalid")
	r.wantInfo("d", "24/512 16")
	r.wantData(r.dev("d"), 40, 8, 2)
	r.ok(r.resume("s"))
	r.wantEnd(r.read(s, 40, 8), blk.IOErr)
	r.remove("s")
	r.wantData(r.dev("d"), 40, 8, 2)
}

func TestWaitingTableWithoutSource(t *testing.T) {
	r := newGated(t, stepped(), 256, 512)
	r.device("s", 256, "snapshot O C P 8")
	r.ok(r.load("d", 256, "snapshot O C P 8"))
	r.remove("s")
	r.ok(r.resume("d"))
	r.wantInfo("d", "Invalid")
	r.wantEnd(r.read(r.dev("d"), 0, 1), blk.IOErr)
	r.wantEnd(r.start(r.dev("d"), blk.Flush, 0, 0, 0, 0), blk.OK)
}

func TestHandoverKeepsInvalidAndOverflow(t *testing.T) {
	for kind, word := range map[string]string{"P": "Invalid", "PO": "Overflow"} {
		r := newGated(t, stepped(), 256, 16)
		s := r.device("s", 256, "snapshot O C "+kind+" 8")
		r.wantEnd(r.write(s, 40, 8, 2), blk.IOErr)
		r.wantInfo("s", word)
		r.ok(r.load("s", 256, "snapshot O C "+kind+" 8"))
		r.ok(r.resume("s"))
		r.wantInfo("s", word)
		r.remove("s")
		if kind == "P" {
			r.device("s", 256, "snapshot O C "+kind+" 8")
			r.wantInfo("s", word) // for ever
		}
	}
}

// No write to the origin is in flight while a snapshot becomes active.
func TestResumeWaitsForOriginWrites(t *testing.T) {
	r := newGated(t, stepped(), 256, 512)
	o := r.device("o", 256, "snapshot-origin O")
	r.forget()
	r.gates["O"].Shut()
	w := r.write(o, 0, 8, 2)
	r.ok(r.load("s", 256, "snapshot O C P 8"))
	done := false
	sim(r).Go("resume", func() { r.ok(r.resume("s")); done = true })
	r.run()
	if done {
		t.Fatal("active while an older write is under way")
	}
	r.release("O", blk.Write, 0)
	r.wantEnd(w, blk.OK)
	if r.run(); !done {
		t.Fatal("not resumed")
	}
	r.open()
	r.wantData(r.dev("s"), 0, 8, 2)
}

func TestSuspendedOriginMayResumeTheSnapshot(t *testing.T) {
	r := newGated(t, stepped(), 256, 512)
	o := r.device("o", 256, "snapshot-origin O")
	r.suspend("o")
	w := r.write(o, 0, 8, 2)
	s := r.device("s", 256, "snapshot O C P 8")
	r.ok(r.resume("o"))
	r.wantEnd(w, blk.OK)
	r.wantData(s, 0, 8, 1)
	r.wantData(o, 0, 8, 2)
}
