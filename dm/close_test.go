package dm

import (
	"testing"
	"time"

	"udm/env"
)

// slowly is "slowly DEVICE": its destruction takes a while.
type slowly struct {
	scripted
	sim *env.Sim
}

func (s *slowly) Close() {
	over := false
	s.sim.AfterFunc(time.Millisecond, func() { over = true })
	s.sim.NewWait().Until(func() bool { return over })
}

// TestCloseDuringARemoval: a device that is being removed holds the devices below it
// open; closing the set waits for it and removes them.
func TestCloseDuringARemoval(t *testing.T) {
	r := newRig(t)
	c := NewControl(r.sim, r, scriptType, &Type{Name: "slowly", New: func(ti *Target, args []string) (Mapper, error) {
		d, err := ti.Open(args[0], true)
		return &slowly{scripted{dev: d}, r.sim}, err
	}})
	r.c, c = c, r.c
	r.device("low", "0 64 script g0 0")
	top := r.device("top", "0 64 slowly /dev/mapper/low")
	h, err := top.Open(true)
	r.must(err)
	_, err = top.Remove(true)
	r.must(err)
	r.must(h.Close())
	for len(r.c.List()) > 1 && r.sim.Step() {
	}
	r.must(r.c.Close())
	r.c = c
}

// asked blocks in its status.
type asked struct {
	shift
	wait  func()
	close func()
}

func (a *asked) Status(StatusKind, StatusFlags) string { a.wait(); return "" }
func (a *asked) Close()                                { a.close() }

// A table that a resume has replaced is closed when its last reader is done.
func TestTableStaysWhileItIsAskedForItsStatus(t *testing.T) {
	r := newRig(t)
	answered, closed, w := false, false, r.sim.NewWait()
	r.c.types["asked"] = &Type{Name: "asked", New: func(t *Target, args []string) (Mapper, error) {
		d, err := t.Open(args[0], true)
		return &asked{shift{d, 0}, func() { w.Until(func() bool { return answered }) }, func() { closed = true }}, err
	}}
	d := r.device("d", "0 8 asked g0")
	r.load(d, "0 8 shift g0")
	r.sim.Go("status", func() { d.Lines(Info, false, 0) })
	r.sim.Run()
	r.sim.Go("resume", func() { r.must(d.Resume(ctx, false)) })
	r.sim.Run()
	if closed {
		t.Fatal("closed while it is asked for its status")
	}
	answered = true
	w.Wake()
	r.sim.Run()
	if !closed {
		t.Fatal("not closed")
	}
}

// An inactive table that another one replaces closes its devices.
func TestReplacedInactiveTableIsClosed(t *testing.T) {
	r := newRig(t)
	low, d := r.device("low", "0 8 shift g0"), r.device("d", "0 8 shift g0")
	r.load(d, "0 8 shift /dev/mapper/low")
	r.load(d, "0 8 shift g1")
	if n := low.Status().Opens; n != 0 {
		t.Fatalf("open %d times", n)
	}
}
