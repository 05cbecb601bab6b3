package dm

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"testing"

	"udm/blk"
)

// What stands on a device is moved to another one, with I/O in flight, and a table that
// a user has loaded stays loaded.
func TestExchange(t *testing.T) {
	r := newRig(t)
	top := r.device("top", "0 64 script g0 0")
	under, err := r.c.Create("under", "", -1)
	r.must(err)
	r.load(top, "0 64 script g2 0")
	w := r.write(top, 0, 8)
	done := false
	r.sim.Go("exchange", func() {
		r.must(Exchange(ctx, []Change{
			{top, specs("0 64 script /dev/mapper/under 0"), Mode{Write: true}},
			{under, specs("0 64 script g0 0"), Mode{Write: true}},
		}))
		done = true
	})
	r.sim.Run()
	late := r.write(top, 8, 8)
	r.open(w, late)
	r.held("g0", "write 0+8")
	r.gate("g0").Open()
	r.ended(w, blk.OK)
	r.ended(late, blk.OK)
	r.content("g0", 8, 8, 8)
	st := top.Status()
	if !done || st.Suspended || st.InternallySuspended || !st.Inactive {
		t.Errorf("after the exchange: %+v", st)
	}
	if got := top.Deps(false); len(got) != 1 || got[0] != under.Number() {
		t.Errorf("top stands on %v", got)
	}
	if got, _, _ := top.Loaded(true); got[0].Params != "g2 0" {
		t.Errorf("inactive: %v", got)
	}
}

// A device is suspended before those that it uses, in whatever order the list has them,
// since its I/O in flight goes through them.
func TestExchangeStopsUsersFirst(t *testing.T) {
	r := newRig(t)
	under := r.device("under", "0 64 script g0 0")
	top := r.device("top", "0 64 script /dev/mapper/under 0")
	first := r.write(top, 0, 8)
	done := false
	r.sim.Go("exchange", func() {
		r.must(Exchange(ctx, []Change{
			{under, specs("0 64 script g2 0"), Mode{Write: true}},
			{top, specs("0 64 script g0 0"), Mode{Write: true}},
		}))
		done = true
	})
	r.sim.Run()
	late := r.write(top, 8, 8)
	r.gate("g0").Open()
	r.sim.Run()
	if !done {
		t.Fatal("the exchange waits for ever")
	}
	r.ended(first, blk.OK)
	r.ended(late, blk.OK)
}

// A table that does not load leaves everything as it was.
func TestExchangeFails(t *testing.T) {
	r := newRig(t)
	r.gate("g0").Open()
	r.gate("g1").Open()
	a := r.device("a", "0 64 script g0 0")
	b := r.device("b", "0 64 script g1 0")
	fresh, err := r.c.Create("c", "", -1)
	r.must(err)
	for _, bad := range []string{"0 64 script nosuch 0", "0 64 nosuch", "0 64 script /dev/mapper/a 0"} {
		err := Exchange(ctx, []Change{
			{a, specs(bad), Mode{}},
			{b, specs("0 64 script g2 0"), Mode{}},
			{fresh, specs("0 64 script g3 0"), Mode{}},
		})
		if err == nil {
			t.Fatalf("%q is taken", bad)
		}
		for d, want := range map[*Device]string{a: "g0 0", b: "g1 0"} {
			if got, _, _ := d.Loaded(false); got[0].Params != want || d.Status().ReadOnly || d.Stopped() {
				t.Errorf("after %q %s has %v", bad, d, got)
			}
		}
		if st := fresh.Status(); st.Live || st.InternallySuspended {
			t.Errorf("after %q: %+v", bad, st)
		}
		r.ended(r.write(a, 0, 8), blk.OK)
		r.ended(r.write(b, 8, 8), blk.OK)
	}
	r.content("g1", 8, 8, 8)
}

// A device that is only suspended meanwhile has its resume hooks run, even if the
// exchange fails.
func TestExchangeResumesWhatStopped(t *testing.T) {
	r := newRig(t)
	a, b := r.device("a", "0 64 script g0 0"), r.device("b", "0 64 script g1 0")
	for _, table := range []string{"0 64 script g2 0", "0 64 script nosuch 0"} {
		script(b, 0).log = nil
		_ = Exchange(ctx, []Change{{b, nil, Mode{}}, {a, specs(table), Mode{}}})
		if got := fmt.Sprint(script(b, 0).log); got != "[presuspend postsuspend preresume resume]" || b.Stopped() {
			t.Errorf("%q: %s", table, got)
		}
	}
}

// A user's suspend is not lifted, and nothing waits for ever.
func TestExchangeIsRefused(t *testing.T) {
	r := newRig(t)
	r.gate("g1").Open()
	a := r.device("a", "0 64 script g0 0")
	b := r.device("b", "0 64 script g1 0")
	change := []Change{{a, specs("0 64 script g2 0"), Mode{}}, {b, nil, Mode{}}}
	r.must(b.Suspend(ctx, false))
	if err := Exchange(ctx, change); !errors.Is(err, syscall.EBUSY) || a.Stopped() {
		t.Errorf("beside a suspended device: %v", err)
	}
	if st := b.Status(); !st.Suspended || st.InternallySuspended {
		t.Errorf("a user's suspend is gone: %+v", st)
	}
	r.resume(b)
	w := r.write(a, 0, 8)
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	if err := Exchange(cancelled, change); !errors.Is(err, syscall.EINTR) || a.Stopped() || b.Stopped() {
		t.Errorf("given up: %v", err)
	}
	r.gate("g0").Open()
	r.gate("g0").ReleaseAll()
	r.ended(w, blk.OK)
	_, err := b.Remove(false)
	r.must(err)
	if err := Exchange(ctx, change); !errors.Is(err, syscall.ENXIO) || a.Stopped() {
		t.Errorf("with a removed device: %v", err)
	}
}
