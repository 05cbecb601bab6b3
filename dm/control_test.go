package dm

import (
	"slices"
	"strings"
	"syscall"
	"testing"

	"udm/blk"
)

func (r *rig) errno(err error, want syscall.Errno) {
	r.t.Helper()
	if ErrnoOf(err) != want {
		r.t.Fatalf("got %v, want errno %v", err, want)
	}
}

func (r *rig) create(name string) *Device {
	r.t.Helper()
	d, err := r.c.Create(name, "", -1)
	r.must(err)
	return d
}

func TestNamesAndNumbers(t *testing.T) {
	r := newRig(t)
	a, err := r.c.Create("a", "u1", -1)
	r.must(err)
	for _, c := range []struct {
		name, uuid string
		minor      int
		want       syscall.Errno
	}{
		{"a", "", -1, syscall.EBUSY},
		{"b", "u1", -1, syscall.EBUSY},
		{"b", "", 0, syscall.ENXIO},
		{"x/y", "", -1, syscall.EINVAL},
		{"", "", -1, syscall.EINVAL},
		{strings.Repeat("n", 128), "", -1, syscall.EINVAL},
		{"b", strings.Repeat("u", 129), -1, syscall.EINVAL},
		{"b", "", 1 << 20, syscall.ENXIO},
	} {
		_, err := r.c.Create(c.name, c.uuid, c.minor)
		r.errno(err, c.want)
	}
	seven, err := r.c.Create("b", "", 7)
	r.must(err)
	if n := r.create("c").Number(); n != (Number{Major: Major, Minor: 1}) {
		t.Fatalf("the lowest free minor is 1, got %v", n)
	}
	r.errno(a.Rename("b"), syscall.EBUSY)
	r.errno(a.SetUUID("u2"), syscall.EINVAL)
	r.errno(seven.SetUUID("u1"), syscall.EBUSY)
	r.must(seven.SetUUID("u7"))
	r.must(a.Rename("z"))
	if _, err := r.c.Name("a"); ErrnoOf(err) != syscall.ENXIO {
		t.Fatalf("the old name still finds something: %v", err)
	}
	var names []string
	for _, d := range r.c.List() {
		names = append(names, d.Name())
	}
	if strings.Join(names, " ") != "b c z" {
		t.Fatalf("listed %v", names)
	}
	got, err := r.c.UUID("u7")
	r.must(err)
	if got != seven {
		t.Fatal("the uuid finds another device")
	}
}

func TestOpenKeepsADevice(t *testing.T) {
	r := newRig(t)
	d := r.two()
	h, err := d.Open(true)
	r.must(err)
	_, err = d.Remove(false)
	r.errno(err, syscall.EBUSY)
	marked, err := d.Remove(true)
	r.must(err)
	if !marked || !d.Status().DeferredRemove {
		t.Fatal("not marked")
	}
	_, err = d.Message(0, "@cancel_deferred_remove")
	r.must(err)
	h.Close()
	r.sim.Run()
	if len(r.c.List()) != 1 {
		t.Fatal("removed although the mark was taken back")
	}
	h, err = d.Open(true)
	r.must(err)
	_, err = d.Remove(true)
	r.must(err)
	h.Close()
	r.sim.Run()
	if len(r.c.List()) != 0 {
		t.Fatal("still there after its last user closed it")
	}
	_, err = d.Open(false)
	r.errno(err, syscall.ENXIO)
	r.errno(d.Suspend(ctx, false), syscall.ENXIO)
	r.errno(d.Load(specs("0 8 shift g0"), Mode{Write: true}), syscall.ENXIO)
}

func TestStackedDevices(t *testing.T) {
	r := newRig(t)
	low := r.device("low", "0 64 shift g0")
	top := r.device("top", "0 8 shift /dev/mapper/low", "8 8 shift /dev/dm-0", "16 8 shift 254:0")
	if low.Status().Opens != 1 {
		t.Fatalf("one table opens a device once, got %d", low.Status().Opens)
	}
	if deps := top.Deps(false); len(deps) != 1 || deps[0] != low.Number() {
		t.Fatalf("deps %v", deps)
	}
	r.errno(low.Load(specs("0 8 shift /dev/mapper/low"), Mode{Write: true}), syscall.EINVAL)
	r.errno(low.Load(specs("0 8 shift /dev/mapper/top"), Mode{Write: true}), syscall.EINVAL)
	if low.Status().Opens != 1 || top.Status().Opens != 0 {
		t.Fatal("a refused load leaves devices open")
	}
	r.load(top, "0 24 shift /dev/mapper/low")
	if low.Status().Opens != 1 {
		t.Fatalf("the two tables of a device share an open, got %d", low.Status().Opens)
	}
	r.must(top.Resume(ctx, false))
	if low.Status().Opens != 1 {
		t.Fatalf("open %d times after the old table is gone", low.Status().Opens)
	}
	w := r.write(top, 8, 8)
	r.held("g0", "write 8+8")
	r.release("g0")
	r.ended(w, blk.OK)
	_, err := low.Remove(false)
	r.errno(err, syscall.EBUSY)
	r.c.RemoveAll(false)
	if len(r.c.List()) != 0 {
		t.Fatal("a stack does not unwind")
	}
}

func TestTableErrors(t *testing.T) {
	r := newRig(t)
	d := r.create("d")
	for _, c := range []struct{ table, want string }{
		{"", "empty table"},
		{"1 8 shift g0", "Gap in table"},
		{"0 8 shift g0|9 8 shift g0", "Gap in table"},
		{"0 0 shift g0", "zero-length"},
		{"0 18014398509481984 shift g0", "too large device"},
		{"0 8 nothing g0", "unknown target type"},
		{"0 8 shift /dev/mapper/d", "map to itself"},
		{"0 8 shift x0", "no x0"},
	} {
		var ss []Spec
		if c.table != "" {
			ss = specs(strings.Split(c.table, "|")...)
		}
		err := d.Load(ss, Mode{Write: true})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: got %v, want %q", c.table, err, c.want)
		}
	}
	if s := d.Status(); s.Live {
		t.Fatalf("a refused table is in a slot: %+v", s)
	}
}

func TestReadOnlyTable(t *testing.T) {
	r := newRig(t)
	d := r.create("d")
	r.must(d.Load(specs("0 8 shift g0"), Mode{}))
	r.must(d.Resume(ctx, false))
	if !d.Status().ReadOnly || !d.Limits().ReadOnly {
		t.Fatal("not read-only")
	}
	_, err := d.Open(true)
	r.errno(err, syscall.EACCES)
	_, err = d.Open(false)
	r.must(err)
	r.c.byName["d"].opens-- // never closed on purpose: Close must not wait for it
}

func TestEventsAndWait(t *testing.T) {
	r := newRig(t)
	d := r.two()
	woke := false
	r.sim.Go("wait", func() { r.must(d.Wait(ctx, 0)); woke = true })
	r.sim.Run()
	if woke {
		t.Fatal("woke without an event")
	}
	d.Target(0).Event()
	r.sim.Run()
	if !woke || d.Status().EventNr != 1 {
		t.Fatalf("woke %v, event %d", woke, d.Status().EventNr)
	}
	r.must(d.Wait(ctx, 0)) // differs already
	r.must(d.Rename("other"))
	if d.Status().EventNr != 2 {
		t.Fatal("a rename with a live table is an event")
	}
}

func TestMessages(t *testing.T) {
	r := newRig(t)
	d := r.create("d")
	_, err := d.Message(0, "hello")
	r.must(err) // no live table: success, as the kernel answers
	_, err = d.Message(0, "  ")
	r.errno(err, syscall.EINVAL)
	_, err = d.Message(0, "@unknown")
	r.errno(err, syscall.EINVAL)
	d = r.two()
	_, err = d.Message(0, "hello")
	r.errno(err, syscall.EINVAL)
	_, err = d.Message(99, "hello")
	r.errno(err, syscall.EINVAL)
}

func TestSplitArgs(t *testing.T) {
	for in, want := range map[string]string{
		"a b\tc":    "a|b|c",
		"  a  ":     "a",
		`a\ b c`:    "a b|c",
		`a\\b`:      `a\b`,
		`x\`:        `x\`,
		"":          "",
		"\n a\v b ": "a|b",
	} {
		got := SplitWords(in)
		if strings.Join(got, "|") != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
		var quoted []string
		for _, w := range got {
			quoted = append(quoted, QuoteWord(w))
		}
		if again := SplitWords(strings.Join(quoted, " ")); !slices.Equal(again, got) {
			t.Errorf("%q: quoted %q, and split again %q", in, quoted, again)
		}
	}
}

func TestClear(t *testing.T) {
	r := newRig(t)
	d := r.two()
	r.load(d, "0 8 script g2 0")
	if !d.Status().Inactive || len(d.Lines(Info, true, 0)) != 1 {
		t.Fatal("no inactive table")
	}
	d.Clear()
	d.Clear()
	if d.Status().Inactive || d.Status().Targets != 2 {
		t.Fatal("clear did not only empty the inactive slot")
	}
}
