package sim

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path"
	"slices"
	"strings"
	"time"

	"udm/blk"
	"udm/blk/blktest"
	"udm/ctl"
	"udm/ctl/server/service"
	uvolume "udm/volume"
)

// objects is a scenario with the daemon's operations on clones, volumes and snapshots
// beside I/O. A kill, a power cut or an error of the daemon's file system at any moment
// leaves an operation complete or undone, and all else untouched.
type objects struct {
	files files
	srv   *service.Service
	size  uint64
	base  *blktest.Model // of the image
	all   map[string]*thing
	names int // of files so far
	fails bool
	lazy  bool // clones are lazy
	began bool
	doing *operation // nil: none is under way, or may be half done
}

// thing is an object that should be there.
type thing struct {
	model, base *blktest.Model // base: what a reset brings back; nil: nothing
	of          *thing         // it is a snapshot of that
	vol         *volume        // nil: not open
}

// operation is one that may have happened or not: did tells, by what is listed of the
// objects, and done makes the model what it is then.
type operation struct {
	text string
	do   func(context.Context) error
	did  func(now map[string]uvolume.Object) bool
	done func()
}

// imagePath is the image; its directory is durable.
const imagePath = "/var/lib/image"

func newObjects(r *rand.Rand) scenario {
	o := &objects{size: 8 * (8 + r.Uint64N(20)), fails: r.IntN(3) == 0, all: map[string]*thing{}}
	o.base = blktest.NewModel(o.size)
	return o
}

func (o *objects) prepare(w *harness) {
	w.files = newFilesys(w)
	w.files.watch = func() {}
	o.files = files{w.files}
	d := w.disk(imagePath, o.size)
	const seed = 99
	b := &blk.Bio{Op: blk.Write, End: func(*blk.Bio) {}}
	b.SetData(blktest.Pattern(0, o.size, seed))
	d.perform(b)
	d.perform(&blk.Bio{Op: blk.Flush, End: func(*blk.Bio) {}})
	o.base.Write(0, o.size, seed, true)
	w.files.names[imagePath] = &node{disk: d}
	w.files.safe[imagePath] = w.files.names[imagePath]
}

func (o *objects) start(w *harness) {
	o.files.off, o.files.fails = false, false
	srv, err := service.New(service.Config{Root: root, Program: "sim", Env: w.sim, Opener: w, FS: w.files, Files: o.files, Control: w.c})
	if !w.right(err, "start the daemon") || !w.right(srv.Restore(context.Background()), "restore") {
		return
	}
	o.srv = srv
	for _, t := range o.all {
		t.vol = nil
	}
	if !o.began {
		o.began = true
		w.right(srv.CreatePool(context.Background(), uvolume.PoolSpec{Name: "p", Size: 8 << 20}), "create a pool")
		for _, op := range []*operation{o.firstClone("a"), o.firstClone("b"), o.clone("c", "p"), o.snapshot("a", "d"), o.snapshot("c", "e")} {
			w.right(op.do(context.Background()), "%s", op.text)
			op.done()
		}
	}
	o.settle(w)
	o.files.fails = o.fails
}

// settle waits until nothing is under way, and judges what became of the operation
// that was.
func (o *objects) settle(w *harness) {
	for range 1000 {
		if ops, _ := o.srv.Operations(context.Background()); len(ops) == 0 {
			o.judge(w)
			return
		}
		w.sleep(time.Second)
	}
	ops, _ := o.srv.Operations(context.Background())
	w.fail("operations do not end: %+v", ops)
}

// now lists the objects.
func (o *objects) now() map[string]uvolume.Object {
	list, _ := o.srv.Objects(context.Background())
	now := map[string]uvolume.Object{}
	for _, x := range list {
		now[x.Name] = x
	}
	return now
}

func (o *objects) judge(w *harness) {
	now := o.now()
	if op := o.doing; op != nil {
		o.doing = nil
		if did := op.did(now); did {
			w.note("%s: done", op.text)
			op.done()
		}
	}
	for name := range now {
		if name != "p" && o.all[name] == nil {
			w.fail("there is a %s %s", now[name].Kind, name)
		}
	}
	for _, name := range o.sorted() {
		t := o.all[name]
		if x, ok := now[name]; !ok || x.State != "active" {
			w.fail("%s is gone: %+v", name, x)
		} else if t.vol == nil {
			d, err := w.c.Name(name)
			w.right(err, "find %s", name)
			t.vol = w.open(d, t.model)
		}
	}
	orphans, err := o.srv.Orphans(context.Background())
	if w.right(err, "orphans"); len(orphans) > 0 {
		w.fail("nobody uses %v", orphans)
	}
}

func (o *objects) sorted() (names []string) {
	for name := range o.all {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// control carries out one operation. What changes the content of an object is done
// while nobody writes to it; all others go on.
func (o *objects) control(w *harness, r *rand.Rand) {
	op := o.draw(w, r)
	if op == nil {
		return
	}
	o.carryOut(w, op)
}

// carryOut carries out one operation and judges it.
func (o *objects) carryOut(w *harness, op *operation) {
	w.note("%s", op.text)
	o.doing = op
	err := op.do(context.Background())
	if o.files.off {
		return // the machine is gone
	}
	w.note("%s: %v", op.text, err)
	var no *uvolume.Refusal
	switch did := op.did; {
	case err == nil:
		op.did = func(now map[string]uvolume.Object) bool {
			if !did(now) {
				w.fail("%s is answered, but did not happen", op.text)
			}
			return true
		}
	case errors.As(err, &no):
		op.did = func(now map[string]uvolume.Object) bool {
			if did(now) {
				w.fail("%s is refused, but happened", op.text)
			}
			return false
		}
	case w.host != nil && lacking(err): // it has happened, or not
	case !o.fails:
		w.fail("%s: %v", op.text, err)
	}
	o.settle(w)
}

// rest ends the I/O of an object, flushed.
func (o *objects) rest(w *harness, t *thing) {
	if t.vol == nil {
		return
	}
	t.vol.gone = true
	w.sim.NewWait().Until(func() bool { return len(t.vol.inFlight) == 0 })
	w.flush(t.vol)
	w.drop(t.vol)
	t.vol = nil
}

func (o *objects) newFile() string {
	o.names++
	return fmt.Sprintf("%s/new%d.img", path.Dir(imagePath), o.names)
}

func (o *objects) draw(w *harness, r *rand.Rand) *operation {
	free := []string{"a", "b", "c", "d", "e", "f"}
	used := o.sorted()
	free = slices.DeleteFunc(free, func(n string) bool { return slices.Contains(used, n) })
	if len(used) == 0 || len(free) > 3 {
		return o.newClone(free[0], r)
	}
	x := used[r.IntN(len(used))]
	t, was := o.all[x], o.now()[x]
	k, to := r.IntN(10), ""
	if len(free) > 0 {
		to = free[0]
	}
	switch {
	case isHydrating(was) && r.IntN(2) == 0:
		o.hydrate(w, x, r)
		return nil
	case o.lazy && to != "" && r.IntN(4) == 0:
		return o.newClone(to, r)
	case k < 3 && to != "":
		return o.operation(w, "snapshot", x, to)
	case k < 4 && t.base != nil:
		return o.batch(w, "reset", o.some(r, x))
	case k < 6 && t.of != nil:
		return o.operation(w, "rollback", x, "")
	case k < 7 && to != "":
		return o.operation(w, "rename", x, to)
	case k < 8 && was.Kind != uvolume.Disk && !isHydrating(was):
		return o.operation(w, "flatten", x, o.newFile())
	case k < 9:
		return o.operation(w, "commit", x, o.newFile())
	}
	return o.batch(w, "remove", o.some(r, x))
}

// some is x, and now and then others with it.
func (o *objects) some(r *rand.Rand, x string) []string {
	names := []string{x}
	for _, name := range o.sorted() {
		if name != x && r.IntN(4) == 0 {
			names = append(names, name)
		}
	}
	return names
}

// batch is one operation on all of names, which happens to all of them or to none.
func (o *objects) batch(w *harness, what string, names []string) *operation {
	var each []*operation
	for _, name := range names {
		each = append(each, o.operation(w, what, name, ""))
	}
	return &operation{
		text: what + " " + strings.Join(names, " "),
		do: func(ctx context.Context) error {
			if what == "reset" {
				return o.srv.Reset(ctx, ctl.Objects{Names: names})
			}
			return o.srv.RemoveObject(ctx, uvolume.RemoveSpec{Names: names})
		},
		did: func(now map[string]uvolume.Object) bool {
			n := 0
			for _, op := range each {
				if op.did(now) {
					n++
				}
			}
			if n != 0 && n != len(each) {
				w.fail("%s %s happened to %d of %d objects", what, strings.Join(names, " "), n, len(each))
			}
			return n > 0
		},
		done: func() {
			for _, op := range each {
				op.done()
			}
		},
	}
}

// operation is one on x, whose I/O it ends if the content changes. to is a new name or
// file.
func (o *objects) operation(w *harness, what, x, to string) *operation {
	t, was := o.all[x], o.now()[x]
	changed := func(now map[string]uvolume.Object) bool {
		n := now[x]
		if isHydrating(was) && n.Kind == uvolume.Disk { // finished meanwhile
			return false
		}
		return n.Kind != was.Kind || n.Store != was.Store || n.Base != was.Base || was.ID != nil && (n.ID == nil || *n.ID != *was.ID)
	}
	op := &operation{text: what + " " + x, did: changed}
	if what != "rename" && (what != "flatten" || was.Kind == uvolume.Volume) { // a discard would find that its device supports none any more
		o.rest(w, t)
	}
	switch what {
	case "snapshot":
		return o.snapshot(x, to)
	case "rollback":
		o.rest(w, t.of)
		return o.rollback(x, t)
	case "reset":
		op.done = func() {
			t.model = t.base.Clone()
			for _, s := range o.all {
				if s.of == t && was.Kind == uvolume.Volume {
					s.of = nil
				}
			}
		}
	case "rename":
		op.do = func(ctx context.Context) error {
			return o.srv.RenameObject(ctx, ctl.RenameObject{Name: x, NewName: to})
		}
		op.did = func(now map[string]uvolume.Object) bool { return now[to].Name != "" }
		op.done = func() { o.all[to] = t; delete(o.all, x) }
	case "flatten":
		op.do = func(ctx context.Context) error { return o.srv.Flatten(ctx, ctl.ObjectFile{Name: x, File: to}) }
		op.done = func() {
			o.orphan(t)
			t.base, t.of = nil, nil
		}
	case "commit":
		op.do = func(ctx context.Context) error { return o.srv.Commit(ctx, ctl.ObjectFile{Name: x, File: to}) }
		op.done = func() {
			o.orphan(t)
			t.base, t.of = t.model.Clone(), nil
		}
	case "remove":
		op.did = func(now map[string]uvolume.Object) bool { return now[x].Name == "" }
		op.done = func() { o.orphan(t); delete(o.all, x) }
	}
	return op
}

// orphan makes the snapshots of an object nobody's.
func (o *objects) orphan(t *thing) {
	for _, s := range o.all {
		if s.of == t {
			s.of = nil
		}
	}
}

func (o *objects) clone(name, pool string) *operation {
	return &operation{"clone " + name + " " + pool, func(ctx context.Context) error {
		return o.srv.Clone(ctx, uvolume.CloneSpec{Base: imagePath, Names: []string{name}, Pool: pool})
	}, func(now map[string]uvolume.Object) bool { return now[name].Name != "" }, func() {
		o.all[name] = &thing{model: o.base.Clone(), base: o.base}
	}}
}

func (o *objects) snapshot(of, name string) *operation {
	n := new(thing)
	return &operation{"snapshot " + of + " as " + name, func(ctx context.Context) error {
		return o.srv.Snapshot(ctx, uvolume.SnapshotSpec{Of: of, Names: []string{name}})
	}, func(now map[string]uvolume.Object) bool { return now[name].Name != "" }, func() {
		n.of = o.all[of]
		n.model = n.of.model.Clone()
		if o.now()[of].Kind == uvolume.Volume {
			n.base = n.of.base
		}
		o.all[name] = n
	}}
}

// rollback of a snapshot in a pool leaves the snapshot, and gives the volume another
// number.
func (o *objects) rollback(name string, t *thing) *operation {
	of := ""
	for n, x := range o.all {
		if x == t.of {
			of = n
		}
	}
	before := o.now()
	did := func(now map[string]uvolume.Object) bool { return now[name].Name == "" }
	if was := before[of]; was.Kind == uvolume.Volume {
		did = func(now map[string]uvolume.Object) bool { return now[of].ID != nil && *now[of].ID != *was.ID }
	}
	return &operation{"rollback " + name, func(ctx context.Context) error { return o.srv.Rollback(ctx, ctl.Object{Name: name}) }, did, func() {
		t.of.model = t.model.Clone()
		if before[of].Kind != uvolume.Volume {
			delete(o.all, name)
		}
	}}
}

// end ends the daemon's operations, as it does itself before it closes its devices.
func (o *objects) end() { o.srv.EndOperations() }

func (o *objects) verify(*harness) {}

// impatient: writes to an object fail if they wait for space in the store of a snapshot
// that is being removed; and an object that was flattened stands on nothing that waits.
func (o *objects) impatient(v *volume) bool {
	if o.doing != nil && strings.HasPrefix(o.doing.text, "remove ") {
		return true
	}
	for _, t := range o.all {
		if t.vol == v {
			return t.base == nil && t.of == nil
		}
	}
	return false
}
