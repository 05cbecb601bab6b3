package dm

import (
	"syscall"
	"testing"

	"udm/env"
)

// meetType is "meet DEVICE": its constructor opens the device and continues when two
// constructors have come that far.
func meetType(e env.Env) *Type {
	arrived, w := 0, e.NewWait()
	return &Type{Name: "meet", New: func(t *Target, args []string) (Mapper, error) {
		d, err := t.Open(args[0], true)
		arrived++
		w.Wake()
		w.Until(func() bool { return arrived >= 2 })
		return &shift{d, 0}, err
	}}
}

// Of two concurrent loads that make a cycle together, one fails.
func TestLoadsAtOnceMakeNoCycle(t *testing.T) {
	r := newRig(t)
	r.c.types["meet"] = meetType(r.sim)
	a, b := r.device("a", "0 8 shift g0"), r.device("b", "0 8 shift g0")
	var errs [2]error
	r.sim.Go("a", func() { errs[0] = a.Load(specs("0 8 meet /dev/mapper/b"), Mode{Write: true}) })
	r.sim.Go("b", func() { errs[1] = b.Load(specs("0 8 meet /dev/mapper/a"), Mode{Write: true}) })
	r.sim.Run()
	if (errs[0] == nil) == (errs[1] == nil) {
		t.Fatalf("loading a over b: %v, b over a: %v; want one of them to fail", errs[0], errs[1])
	}
	for _, err := range errs {
		if err != nil && ErrnoOf(err) != syscall.EINVAL {
			t.Fatal(err)
		}
	}
}

// So it is with a table that a resume has taken and not yet made live.
func TestNoCycleWithATableOnItsWay(t *testing.T) {
	r := newRig(t)
	a, b := r.device("a", "0 8 shift g0"), r.device("b", "0 8 shift g0")
	r.load(a, "0 8 shift /dev/mapper/b")
	x := r.write(a, 0, 8)
	r.sim.Go("resume", func() { r.must(a.Resume(ctx, false)) })
	r.sim.Run()
	err := b.Load(specs("0 8 shift /dev/mapper/a"), Mode{Write: true})
	if ErrnoOf(err) != syscall.EINVAL {
		t.Fatalf("loading b over a: %v", err)
	}
	r.release("g0")
	r.open()
	if x.ends != 1 {
		t.Fatal("the write has not ended")
	}
}

// A constructor that panics leaves no device open and no lock held.
func TestConstructorThatPanics(t *testing.T) {
	r := newRig(t)
	r.c.types["panics"] = &Type{Name: "panics", New: func(t *Target, args []string) (Mapper, error) {
		if _, err := t.Open(args[0], true); err != nil {
			return nil, err
		}
		panic("constructor")
	}}
	low, d := r.device("low", "0 8 shift g0"), r.device("d", "0 8 shift g0")
	func() {
		defer func() {
			if recover() == nil {
				t.Error("the panic is gone")
			}
		}()
		_ = d.Load(specs("0 4 shift /dev/mapper/low", "4 4 panics /dev/mapper/low"), Mode{Write: true})
	}()
	if n := low.Status().Opens; n != 0 {
		t.Fatalf("still open %d times", n)
	}
	r.load(d, "0 8 shift /dev/mapper/low")
}

func TestLimitsWithoutATable(t *testing.T) {
	r := newRig(t)
	d, err := r.c.Create("d", "", -1)
	r.must(err)
	if l := d.Limits(); l.Size != 0 || l.LogicalBlock != 512 {
		t.Fatalf("%+v", l)
	}
}

// A resume that comes after a removal makes no table live.
func TestResumeAfterRemove(t *testing.T) {
	r := newRig(t)
	low, d := r.device("low", "0 8 shift g1"), r.device("d", "0 8 shift g0")
	r.load(d, "0 8 shift /dev/mapper/low")
	r.write(d, 0, 8)
	var resumed, removed error
	r.sim.Go("resume", func() { resumed = d.Resume(ctx, false) })
	r.sim.Run()
	r.sim.Go("remove", func() { _, removed = d.Remove(false) })
	r.sim.Run()
	r.release("g0")
	r.must(removed)
	if s := low.Status(); s.Opens != 0 || d.table() != nil {
		t.Fatalf("resume: %v; the device below is open %d times, a table is live: %v", resumed, s.Opens, d.table() != nil)
	}
	r.must(func() error { _, err := low.Remove(false); return err }())
	for _, err := range []error{d.Suspend(ctx, true), d.Resume(ctx, true), d.suspend(ctx, false), d.resume(ctx)} {
		if ErrnoOf(err) != syscall.ENXIO {
			t.Fatalf("on a removed device: %v", err)
		}
	}
}
