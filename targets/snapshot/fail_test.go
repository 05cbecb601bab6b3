package snapshot

import (
	"testing"

	"udm/blk"
	"udm/blk/blktest"
	"udm/blk/memdev"
	"udm/dm"
	"udm/env"
)

// failRun is a scenario on devices one of whose I/Os fails.
type failRun struct {
	*rig
	f      *blktest.Failer
	models map[string]*blktest.Model
	seed   uint64
	errors int
}

func (x *failRun) write(name string, sector, sectors uint64) {
	d, err := x.c.Name(name)
	if err != nil {
		return
	}
	x.seed++
	m := x.models[name]
	op := m.Begin(sector, sectors, x.seed)
	b := &blk.Bio{Op: blk.Write, Sector: sector}
	b.SetData(blktest.Pattern(sector, sectors, x.seed))
	st := blk.Do(x.e, d, b)
	m.End(op, st, false)
	x.count(st)
}

func (x *failRun) count(st error) {
	if st != nil && st != blk.OK {
		x.errors++
	}
}

// read checks what can be read.
func (x *failRun) read(name string) {
	d, err := x.c.Name(name)
	if err != nil {
		return
	}
	m := x.models[name]
	p := make([]byte, 512)
	for s := range m.Sectors() {
		err := blk.ReadSectors(x.e, d, p, s)
		x.count(err)
		if err != nil {
			continue
		}
		if err := m.Check(p, s); err != nil {
			x.Fatalf("%s: %v (%s)", name, err, x.info(name))
		}
	}
}

func (x *failRun) up(name, table string) bool {
	err := x.load(name, 64, table)
	if err == nil {
		err = x.resume(name)
	} else if d, e := x.c.Name(name); e == nil && !d.Status().Live {
		x.remove(name)
	}
	x.count(err)
	return err == nil
}

func newFailRun(t *testing.T, f *blktest.Failer) *failRun {
	r := newRig(t, stepped(), disks{})
	x := &failRun{rig: r, f: f, models: map[string]*blktest.Model{}}
	o := memdev.New(64)
	r.ok(blk.WriteSectors(r.e, o, blktest.Pattern(0, 64, 1), 0, 0))
	x.seed = 1
	raw := disks{"C": memdev.New(256), "D": memdev.New(256)}
	t.Cleanup(func() { r.checkStores(raw) })
	ds := disks{"O": f.Wrap(o), "C": f.Wrap(raw["C"]), "D": f.Wrap(raw["D"])}
	r.c = dm.NewControl(r.e, ds, Types()...)
	for _, n := range []string{"o", "s", "d", "m"} {
		m := blktest.NewModel(64)
		m.Write(0, 64, 1, true)
		x.models[n] = m
	}
	return x
}

// finish checks that nothing is left over and that a failure was reported.
func (x *failRun) finish(t *testing.T, told bool) {
	for _, d := range x.c.List() {
		switch m := d.Target(0).Mapper().(type) {
		case *snapshot:
			m.mustBeIdle(t)
			told = told || x.info(d.Name()) != "" && !m.has(flagValid)
		case mergeTarget:
			m.mustBeIdle(t)
			told = told || m.has(flagMergeFailed)
		}
	}
	if err := x.c.Close(); err != nil {
		t.Error(err)
	}
	if told = told || x.errors > 0; told != x.f.Failed() {
		t.Errorf("told of an error: %v, %v", told, x.f)
	}
}

func TestFailEachOnEveryPath(t *testing.T) {
	for _, kind := range []string{"P", "PO", "N"} {
		n := blktest.FailEach(t, func(t *testing.T, f *blktest.Failer) {
			x := newFailRun(t, f)
			x.up("o", "snapshot-origin O")
			x.up("s", "snapshot O C "+kind+" 4 1 discard_zeroes_cow")
			x.up("d", "snapshot O D "+kind+" 8")
			x.write("s", 4, 4)
			x.write("s", 9, 2)
			x.write("o", 9, 2)
			x.write("o", 20, 9)
			x.write("s", 21, 3)
			x.write("d", 22, 1)
			for _, n := range []string{"s", "o", "d"} {
				if d, err := x.c.Name(n); err == nil {
					x.count(blk.FlushDevice(x.e, d))
				}
				x.read(n)
			}
			if d, err := x.c.Name("s"); err == nil {
				x.count(blk.DiscardSectors(x.e, d, 4, 4))
			}
			x.finish(t, false)
		})
		t.Logf("%s: %d I/Os", kind, n)
	}
}

func TestFailEachInAMerge(t *testing.T) {
	n := blktest.FailEach(t, func(t *testing.T, f *blktest.Failer) {
		x := newFailRun(t, f)
		if !x.up("s", "snapshot O C P 4") || !x.up("d", "snapshot O D P 8") {
			x.finish(t, true)
			return
		}
		for s := uint64(0); s < 60; s += 7 {
			x.write("s", s, 3)
		}
		if !x.snap("s").has(flagValid) {
			x.finish(t, true) // would be the origin's content from now on
			return
		}
		x.models["m"] = x.models["s"]
		x.suspend("s")
		if !x.up("m", "snapshot-merge O C P 4") {
			x.finish(t, true)
			return
		}
		x.remove("s")
		x.write("m", 8, 4)
		x.run()
		x.write("m", 30, 9)
		x.read("m")
		x.read("d")
		x.finish(t, false)
	})
	t.Logf("%d I/Os", n)
}

// Opening an existing store.
func TestFailEachAtOpen(t *testing.T) {
	n := blktest.FailEach(t, func(t *testing.T, f *blktest.Failer) {
		e := env.NewStepped()
		o, c := memdev.New(64), memdev.New(1024)
		r := newRig(t, e, disks{"O": o, "C": c})
		s := r.device("s", 64, "snapshot O C P 1")
		for i := range uint64(64) { // two areas
			r.wantEnd(r.write(s, i, 1, 2), blk.OK)
		}
		r.remove("s")
		ctl := r.c
		r.c = dm.NewControl(e, disks{"O": f.Wrap(o), "C": f.Wrap(c)}, Types()...)
		defer func() { r.ok(r.c.Close()); r.c = ctl }()
		if err := r.load("s", 64, "snapshot O C P 8"); (err != nil) != f.Failed() {
			t.Errorf("got %v", err)
		} else if err != nil {
			wantErrno(t, err, 5)
		}
		w := r.registry()
		for _, d := range r.c.List() {
			r.remove(d.Name())
		}
		if len(w.groups) != 0 {
			t.Error("an origin is left in the registry")
		}
	})
	if n != 4 {
		t.Errorf("%d I/Os", n)
	}
}

func (r *rig) registry() *registry {
	d := r.device("w", 64, "snapshot-origin O")
	defer r.remove("w")
	return registryOf(d.Target(0))
}
