package volume

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"path"
	"syscall"
	"testing"

	"udm/blk/blktest"
	"udm/dm"
	"udm/internal/invariants"
	"udm/targets/thin"
	"udm/volume/rbddiff"
)

// scenarios are operations, each with what is there before. The devices of all
// are: a (clone of i.img), b (clone of i.img), pool p with the volume v (of
// i.img) and its snapshot vs, disk d (on d.img) with the snapshots ds and ds2, and h, a
// lazy clone whose source cannot be read.
var scenarios = []struct {
	name string
	do   func(m *Manager) error
}{
	{"clone", func(m *Manager) error {
		return m.Clone(ctx, CloneSpec{Base: "/img/i.img", Names: []string{"c1", "c2", "c3"}})
	}},
	{"clone, longer", func(m *Manager) error {
		return m.Clone(ctx, CloneSpec{Base: "/img/i.img", Names: []string{"c1", "c2"}, Size: 200 << 9})
	}},
	{"clone in a pool", func(m *Manager) error {
		return m.Clone(ctx, CloneSpec{Base: "/img/i.img", Names: []string{"c1", "c2"}, Pool: "p"})
	}},
	{"clone of a disk", func(m *Manager) error { return m.Clone(ctx, CloneSpec{Base: "e", Names: []string{"c1", "c2"}}) }},
	{"snapshot of a disk", func(m *Manager) error { return m.Snapshot(ctx, SnapshotSpec{Of: "e", Names: []string{"es"}}) }},
	{"snapshot of a disk with snapshots", func(m *Manager) error { return m.Snapshot(ctx, SnapshotSpec{Of: "d", Names: []string{"ds3"}}) }},
	{"snapshot of a clone", func(m *Manager) error { return m.Snapshot(ctx, SnapshotSpec{Of: "a", Names: []string{"as"}}) }},
	{"snapshot of a snapshot", func(m *Manager) error { return m.Snapshot(ctx, SnapshotSpec{Of: "ds", Names: []string{"dss"}}) }},
	{"snapshot of a volume", func(m *Manager) error { return m.Snapshot(ctx, SnapshotSpec{Of: "v", Names: []string{"v2", "v3"}}) }},
	{"merge of a clone", func(m *Manager) error { return m.Merge(ctx, "x") }},
	{"merge of a snapshot", func(m *Manager) error { return m.Merge(ctx, "ds") }},
	{"merge of the last snapshot", func(m *Manager) error { return m.Merge(ctx, "fs") }},
	{"merge of the snapshot of a clone", func(m *Manager) error { return m.Merge(ctx, "bs") }},
	{"merge of a volume", func(m *Manager) error { return m.Merge(ctx, "vs") }},
	{"reset of a clone", func(m *Manager) error { return m.Reset(ctx, "a") }},
	{"reset of a volume", func(m *Manager) error { return m.Reset(ctx, "vs") }},
	{"reset of clones and volumes", func(m *Manager) error { return m.Reset(ctx, "a", "vs", "l", "v", "x") }},
	{"remove of clones, volumes and a disk", func(m *Manager) error {
		return m.Remove(ctx, RemoveSpec{Names: []string{"a", "vs", "l", "e", "x"}})
	}},
	{"remove clones, keep their stores", func(m *Manager) error {
		return m.Remove(ctx, RemoveSpec{Names: []string{"a", "x"}, Keep: true})
	}},
	{"remove a disk", func(m *Manager) error { return m.Remove(ctx, RemoveSpec{Name: "e"}) }},
	{"remove a clone", func(m *Manager) error { return m.Remove(ctx, RemoveSpec{Name: "a"}) }},
	{"remove a clone, keep its store", func(m *Manager) error { return m.Remove(ctx, RemoveSpec{Name: "a", Keep: true}) }},
	{"remove a longer clone", func(m *Manager) error { return m.Remove(ctx, RemoveSpec{Name: "l"}) }},
	{"remove a snapshot", func(m *Manager) error { return m.Remove(ctx, RemoveSpec{Name: "ds"}) }},
	{"remove the last snapshot", func(m *Manager) error { return m.Remove(ctx, RemoveSpec{Name: "fs"}) }},
	{"remove the snapshot of a clone", func(m *Manager) error { return m.Remove(ctx, RemoveSpec{Name: "bs"}) }},
	{"remove a volume", func(m *Manager) error { return m.Remove(ctx, RemoveSpec{Name: "v"}) }},
	{"remove a pool", func(m *Manager) error { return m.Remove(ctx, RemoveSpec{Name: "q"}) }},
	{"pool create", func(m *Manager) error { return m.CreatePool(ctx, PoolSpec{Name: "n", Size: 1 << 20}) }},
	{"pool grow", func(m *Manager) error { return m.GrowPool(ctx, "p", 4<<20, 8<<20) }},
	{"rename a clone", func(m *Manager) error { return m.Rename(ctx, "a", "a2") }},
	{"rename a longer clone", func(m *Manager) error { return m.Rename(ctx, "l", "l2") }},
	{"rename a disk with snapshots", func(m *Manager) error { return m.Rename(ctx, "d", "d2") }},
	{"rename a clone with a snapshot", func(m *Manager) error { return m.Rename(ctx, "b", "b2") }},
	{"rename a snapshot", func(m *Manager) error { return m.Rename(ctx, "ds", "dt") }},
	{"rename a pool", func(m *Manager) error { return m.Rename(ctx, "p", "p2") }},
	{"resize a disk", func(m *Manager) error { return m.Resize(ctx, ResizeSpec{Name: "e", Size: 200 << 9}) }},
	{"resize a clone", func(m *Manager) error { return m.Resize(ctx, ResizeSpec{Name: "a", Size: 200 << 9}) }},
	{"resize a longer clone", func(m *Manager) error { return m.Resize(ctx, ResizeSpec{Name: "l", Size: 200 << 9}) }},
	{"resize a volume", func(m *Manager) error { return m.Resize(ctx, ResizeSpec{Name: "v", Size: 200 << 9}) }},
	{"flatten a clone", func(m *Manager) error { return m.Flatten(ctx, "a", "/img/new.img") }},
	{"flatten a longer clone", func(m *Manager) error { return m.Flatten(ctx, "l", "/img/new.img") }},
	{"flatten a volume", func(m *Manager) error { return m.Flatten(ctx, "v", "/img/new.img") }},
	{"flatten a disk", func(m *Manager) error { return m.Flatten(ctx, "e", "/img/new.img") }},
	{"commit a clone", func(m *Manager) error { return m.Commit(ctx, "a", "/img/new.img") }},
	{"commit a longer clone", func(m *Manager) error { return m.Commit(ctx, "l", "/img/new.img") }},
	{"commit a volume", func(m *Manager) error { return m.Commit(ctx, "v", "/img/new.img") }},
	{"copy out", func(m *Manager) error { return m.CopyOut(ctx, "a", "/img/new.img") }},
	{"copy in", func(m *Manager) error { return m.CopyIn(ctx, "/img/j.img", "a") }},
	{"receive into a pool", func(m *Manager) error { return receiveOf(m, ReceiveSpec{Name: "n", Pool: "q"}, "") }},
	{"receive into a file", func(m *Manager) error { return receiveOf(m, ReceiveSpec{Name: "n", File: "/udm/n.img"}, "") }},
	{"receive on an image", func(m *Manager) error { return receiveOf(m, ReceiveSpec{Name: "n", Base: "/img/i.img"}, "i.img") }},
	{"label a clone", func(m *Manager) error { return m.Label(ctx, LabelSpec{"a", map[string]string{"k": "v"}}) }},
	{"label a disk with snapshots", func(m *Manager) error { return m.Label(ctx, LabelSpec{"d", map[string]string{"k": "v"}}) }},
	{"volume create with labels", func(m *Manager) error {
		return m.CreateVolume(ctx, VolumeSpec{Pool: "p", Name: "w", Size: 1 << 20, Labels: map[string]string{"k": "v"}})
	}},
	{"clone lazily", func(m *Manager) error {
		return m.Clone(ctx, CloneSpec{Base: "/img/i.img", Names: []string{"c1", "c2"}, Lazy: true})
	}},
	{"clone lazily, longer", func(m *Manager) error {
		return m.Clone(ctx, CloneSpec{Base: "/img/i.img", Names: []string{"c1"}, Size: 200 << 9, Lazy: true})
	}},
	{"snapshot of a hydrating clone", func(m *Manager) error { return m.Snapshot(ctx, SnapshotSpec{Of: "h", Names: []string{"hs"}}) }},
	{"rename a hydrating clone", func(m *Manager) error { return m.Rename(ctx, "h", "h2") }},
	{"remove a hydrating clone", func(m *Manager) error { return m.Remove(ctx, RemoveSpec{Name: "h"}) }},
	{"volume create", func(m *Manager) error { return m.CreateVolume(ctx, VolumeSpec{Pool: "p", Name: "w", Size: 1 << 20}) }},
}

// receiveOf receives a stream of an image that is longer than i.img, since that or of
// all.
func receiveOf(m *Manager, s ReceiveSpec, from string) error {
	id := ""
	if from != "" {
		i, err := m.image(s.Base)
		if err != nil {
			return err
		}
		id = i.Fingerprint
	}
	var b bytes.Buffer
	w, err := rbddiff.NewWriter(&b, 0, rbddiff.Header{From: from, To: "n", Size: 140 << 9})
	if err == nil {
		err = errors.Join(w.Data(10<<9, blktest.Pattern(10, 20, 5)), w.Zero(40<<9, 9<<9), w.Close(rbddiff.Seal{From: id, To: "id"}))
	}
	if err == nil {
		_, err = m.Receive(ctx, s, &b)
	}
	return err
}

// furnished is a host with objects of every kind, all at rest.
func furnished(t *testing.T) *host {
	r := boot(t, newHost())
	r.task(func() {
		r.image("i.img", 128)
		r.image("j.img", 128)
		for _, n := range []string{"d", "e", "f"} {
			p := r.image(n+".img", 96)
			r.ok(r.k.Create(ctx, []Device{{Name: n, Table: linearTable(p, 96)}}))
		}
		r.ok(r.m.Clone(ctx, CloneSpec{Base: "/img/i.img", Names: []string{"a", "b"}}))
		r.ok(r.m.Clone(ctx, CloneSpec{Base: "/img/j.img", Names: []string{"x"}}))
		r.ok(r.m.Clone(ctx, CloneSpec{Base: "/img/i.img", Names: []string{"l"}, Size: 160 << 9}))
		r.ok(r.m.CreatePool(ctx, PoolSpec{Name: "p", Size: 2 << 20}))
		r.ok(r.m.CreatePool(ctx, PoolSpec{Name: "q", Size: 1 << 20}))
		r.ok(r.m.Clone(ctx, CloneSpec{Base: "/img/i.img", Names: []string{"v"}, Pool: "p"}))
		for i, n := range []string{"a", "b", "x", "l", "v", "d", "e", "f"} {
			r.write(n, uint64(8+i), 20, uint64(100+i))
		}
		for of, n := range map[string]string{"v": "vs", "d": "ds", "f": "fs", "b": "bs"} {
			r.ok(r.m.Snapshot(ctx, SnapshotSpec{Of: of, Names: []string{n}}))
			r.write(of, 12, 30, 200)
			r.write(n, 50, 9, 201)
		}
		r.ok(r.m.Snapshot(ctx, SnapshotSpec{Of: "d", Names: []string{"ds2"}}))
		r.write("d", 70, 9, 300)
		r.ok(r.k.Create(ctx, []Device{{Name: deadSource, ReadOnly: true, Table: []dm.Spec{{Len: 256, Type: "error"}}}}))
		r.ok(r.m.Clone(ctx, CloneSpec{Base: deadSource, Names: []string{"h"}, Lazy: true}))
		r.write("h", 128, 128, 400) // a whole region
		r.ok(r.check())
	})
	r.stop()
	return r.h.clone()
}

// Every operation does what it does, and leaves nothing behind.
func TestOperations(t *testing.T) {
	h := furnished(t)
	for _, s := range scenarios {
		t.Run(s.name, func(t *testing.T) {
			r := boot(t, h.clone())
			r.task(func() {
				before := r.contents()
				r.ok(s.do(r.m))
				r.settle()
				r.ok(r.check())
				after := r.contents()
				t.Logf("%d steps\n%s", r.h.steps, diff(after, before))
				if maps.Equal(before, after) {
					t.Error("nothing has happened")
				}
			})
			r.stop()
			again := boot(t, r.h.clone())
			again.task(func() { again.ok(again.check()) })
			again.stop()
		})
	}
}

// A crash at any moment of an operation leaves it complete or undone, and all else
// untouched; so does an error, and so does the end of the command.
func TestCrashes(t *testing.T) {
	h := furnished(t)
	for _, s := range scenarios {
		t.Run(s.name, func(t *testing.T) {
			x := newCrasher(t, h, s.do)
			n := 0
			for x.mode = killed; x.mode <= leaves; x.mode++ {
				for x.at = 1; x.crash(); x.at += x.stride {
					n++
				}
			}
			t.Logf("%d crashes and errors", n)
		})
	}
}

// crasher carries out an operation that meets something at a step.
type crasher struct {
	t             *testing.T
	h             *host
	do            func(*Manager) error
	before, after map[string]string
	mode          what
	at, stride    int
}

// what happens at a step.
type what int

const (
	killed    what = iota // the process
	powerless             // the machine
	fails                 // the step itself
	leaves                // whoever asked for the operation, such as a command that is killed
)

func newCrasher(t *testing.T, h *host, do func(*Manager) error) *crasher {
	x := &crasher{t: t, h: h, do: do, stride: 1}
	switch {
	case testing.Short() && invariants.Enabled: // with the race detector each costs ten times as much
		x.stride = 41
	case testing.Short():
		x.stride = 7
	}
	r := boot(t, h.clone())
	r.task(func() {
		x.before = r.contents()
		r.ok(do(r.m))
		r.settle()
		x.after = r.contents()
	})
	r.stop()
	return x
}

// crash does it once, and reports whether the operation came as far as that.
func (x *crasher) crash() (reached bool) {
	x.t.Helper()
	r := boot(x.t, x.h.clone())
	start := r.h.steps
	asker, leave := context.WithCancel(ctx)
	defer leave()
	r.h.kill, r.h.seed = x.mode == killed, uint64(x.at)
	r.h.breaks = func(step int) error {
		if step-start != x.at {
			return nil
		}
		reached = true
		switch x.mode {
		case fails:
			return syscall.EIO
		case leaves:
			leave()
			return nil
		}
		return errDead
	}
	var err error
	r.task(func() {
		ctx = asker
		err = x.do(r.m)
		ctx = context.Background()
		r.settle() // what goes on in the background meets it, too
	})
	judge := r
	if r.h.dead != nil {
		judge = boot(x.t, r.h.dead)
		defer r.stop()
	}
	judge.task(func() {
		judge.settle()
		x.judge(judge, err)
	})
	judge.stop()
	if x.t.Failed() {
		x.t.FailNow()
	}
	return reached
}

func (x *crasher) judge(r *rig, err error) {
	x.t.Helper()
	now := r.contents()
	switch done := maps.Equal(now, x.after); {
	case err == nil && !done:
		x.t.Errorf("step %d, mode %d: it is done, but\n%s", x.at, x.mode, diff(now, x.after))
	case !done && !maps.Equal(now, x.before):
		x.t.Errorf("step %d, mode %d: neither done nor undone (%v):\nof the state before\n%s\nof the state after\n%s", x.at, x.mode, err, diff(now, x.before), diff(now, x.after))
	}
	if cerr := r.check(); cerr != nil {
		x.t.Errorf("step %d, mode %d: %v\n(%v)", x.at, x.mode, cerr, err)
	}
}

// A daemon was killed after it had removed a link and before that was durable: the next
// one makes it durable.
func TestUndoneLinkStaysGone(t *testing.T) {
	r := boot(t, newHost())
	r.task(func() {
		r.image("i.img", 128)
		r.ok(r.m.Clone(ctx, CloneSpec{Base: "/img/i.img", Names: []string{"a"}}))
		n := Names{r.m.devices.Record("a").Files[0], "/udm/stores/b.cow"}
		r.ok(r.h.change(nameChange{name: n.To, node: r.h.names[n.From]}))
		r.ok(r.h.change(nameChange{gone: n.To}))
		r.ok((&linkFiles{[]Names{n}}).undo(ctx, r.m, &operation{ID: "x"}))
		for _, c := range r.h.changes {
			if c.name == n.To || c.gone == n.To {
				t.Errorf("%+v is not durable", c)
			}
		}
	})
	r.stop()
}

// A power cut after an operation may bring its entry in the journal back. That changes nothing, neither
// of what it has done nor of what was done since without the journal.
func TestEntryInTheJournalReturns(t *testing.T) {
	h := furnished(t)
	returned := 0
	for _, s := range scenarios {
		t.Run(s.name, func(t *testing.T) {
			r := boot(t, h.clone())
			var want map[string]string
			r.task(func() {
				r.ok(s.do(r.m))
				r.settle()
				r.replaceVolume("w")
				want = r.contents()
			})
			h := r.h.withEntries()
			r.stop()
			if h == nil {
				return
			}
			returned++
			again := boot(t, h)
			again.task(func() {
				if now := again.contents(); !maps.Equal(now, want) {
					t.Error(diff(now, want))
				}
				again.ok(again.check())
			})
			again.stop()
		})
	}
	if returned < len(scenarios)-2 { // labels of one device need no journal
		t.Errorf("%d entries have returned of %d operations", returned, len(scenarios))
	}
}

// replaceVolume replaces a volume of the pool p, if it is there, by another one with the same id, as a user does by dmsetup.
func (r *rig) replaceVolume(name string) {
	r.t.Helper()
	o, err := r.m.object(name)
	if err != nil {
		return
	}
	id := o.volume().ID
	r.ok(r.k.Remove(ctx, []string{name}))
	for _, text := range []string{fmt.Sprint("delete ", id), fmt.Sprint("create_thin ", id)} {
		_, err := r.m.devices.Message(ctx, "p", text)
		r.ok(err)
	}
	line := &thin.ThinLine{Pool: dev("p"), ID: id}
	r.ok(r.k.Create(ctx, []Device{{Name: "since", Table: []dm.Spec{dm.NewSpec(0, 64, line)}}}))
	r.write("since", 8, 20, 500)
}

// withEntries is the host after a power cut that has brought an entry of the journal back; nil: none can.
func (h *host) withEntries() *host {
	for seed := range uint64(20) {
		h.kill, h.seed = false, seed
		c := h.crash()
		for name := range c.names {
			if path.Dir(name) == "/udm/operations" {
				return c
			}
		}
	}
	return nil
}

// The end of an operation that was undone is durable: undone once more, it could hit what others have made since.
func TestUndoneIsGone(t *testing.T) {
	r := boot(t, furnished(t))
	start, created := r.h.steps, false
	r.h.breaks = func(step int) error {
		if !created && step > start+12 { // the devices' file
			created = true
			return syscall.EIO
		}
		return nil
	}
	r.task(func() {
		if err := r.m.CreateVolume(ctx, VolumeSpec{Pool: "p", Name: "w", Size: 1 << 20}); err == nil {
			t.Error("nothing has failed")
		}
		r.settle()
	})
	if r.h.withEntries() != nil {
		t.Error("an entry of the journal returns")
	}
	r.stop()
}
