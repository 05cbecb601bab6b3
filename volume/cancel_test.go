package volume

import (
	"errors"
	"strings"
	"syscall"
	"testing"
	"time"

	"udm/blk"
	"udm/dm"
)

// background starts an operation whose end nobody waits for, and returns it once it
// waits to be tried again, with where its error comes to.
func (r *rig) background(do func(m *Manager) error) (op Operation, end *error) {
	r.t.Helper()
	end = new(error)
	*end = errors.New("still under way")
	r.sim.Go("background", func() { *end = do(r.m) })
	r.sim.NewWait().Until(func() bool {
		ops := r.m.Operations()
		if len(ops) > 0 {
			op = ops[0]
		}
		return op.Problem != ""
	})
	return op, end
}

// unreadable makes reads of an image fail that has been looked at.
func (r *rig) unreadable(path string) {
	r.t.Helper()
	_, err := r.m.image(path)
	r.ok(err)
	r.h.broken = path
}

// A copy whose source cannot be read is tried again and goes on when it can.
func TestFailedCopyInGoesOn(t *testing.T) {
	r := boot(t, furnished(t))
	r.task(func() {
		want := strings.TrimPrefix(r.contents()["/img/j.img"], "clone ")
		r.unreadable("/img/j.img")
		op, end := r.background(func(m *Manager) error { return m.CopyIn(ctx, "/img/j.img", "a") })
		if (*end) == nil || !strings.Contains(op.Problem, "reading") {
			t.Errorf("%+v ends with %v", op, *end)
		}
		if err := r.m.Remove(ctx, RemoveSpec{Name: "a"}); !errors.Is(err, syscall.EBUSY) || !strings.Contains(err.Error(), "copy is in progress") {
			t.Errorf("its target can be removed: %v", err)
		}
		r.h.broken = ""
		r.settle()
		r.ok(r.check())
		if got := r.contents()["a"]; got != "clone "+want {
			t.Errorf("a is %s, want %s", got, want)
		}
	})
	r.stop()
}

// A copy that waits for its source can be cancelled, and frees its target.
func TestCancelledCopyIn(t *testing.T) {
	r := boot(t, furnished(t))
	r.task(func() {
		r.unreadable("/img/j.img")
		op, _ := r.background(func(m *Manager) error { return m.CopyIn(ctx, "/img/j.img", "a") })
		r.ok(r.m.Cancel(ctx, op.ID))
		r.ok(r.check())
		r.ok(r.m.Remove(ctx, RemoveSpec{Name: "a"}))
	})
	r.stop()
}

// Whoever waits for a copy is told that it was cancelled. A copy into a file is
// undone.
func TestCancelWhileCopying(t *testing.T) {
	for name, do := range map[string]func(m *Manager) error{
		"out":     func(m *Manager) error { return m.CopyOut(ctx, "big", "/img/new.img") },
		"in":      func(m *Manager) error { return m.CopyIn(ctx, "/img/big.img", "big") },
		"flatten": func(m *Manager) error { return m.Flatten(ctx, "big", "/img/new.img") },
	} {
		t.Run(name, func(t *testing.T) {
			r := boot(t, newHost())
			r.task(func() {
				r.image("big.img", 3*pieceSectors)
				r.ok(r.m.Clone(ctx, CloneSpec{Base: "/img/big.img", Names: []string{"big"}}))
				r.h.later = func(f func()) { r.sim.AfterFunc(time.Millisecond, f) }
				end, over := error(nil), false
				r.sim.Go("copy", func() { end = do(r.m); over = true })
				var ops []Operation
				r.sim.NewWait().Until(func() bool { ops = r.m.Operations(); return len(ops) == 1 && ops[0].Done > 0 })
				r.ok(r.m.Cancel(ctx, ops[0].ID))
				r.sim.NewWait().Until(func() bool { return over })
				r.h.later = nil
				if !errors.Is(end, syscall.EINTR) {
					t.Errorf("it ends with %v", end)
				}
				r.ok(r.check())
				if r.h.names["/img/new.img"] != nil {
					t.Error("the file is still there")
				}
			})
			r.stop()
		})
	}
}

// What cannot be undone says so, and what it waits for.
func TestCancelTooLate(t *testing.T) {
	r := boot(t, furnished(t))
	r.task(func() {
		d, err := r.c.Name("ds2")
		r.ok(err)
		r.h.breaks = func(int) error {
			if _, err := r.c.Name("ds2"); err != nil {
				return syscall.EIO // all that comes after the removal
			}
			return nil
		}
		op, end := r.background(func(m *Manager) error { return m.Remove(ctx, RemoveSpec{Name: d.Name()}) })
		if err := r.m.Cancel(ctx, op.ID); !errors.Is(err, syscall.EBUSY) || !strings.Contains(err.Error(), "can no longer be undone and continues: ") {
			t.Errorf("%v", err)
		}
		if err := r.m.Cancel(ctx, "nosuch"); !errors.Is(err, syscall.ENOENT) {
			t.Errorf("of nothing: %v", err)
		}
		r.h.breaks = nil
		r.settle()
		r.ok(r.check())
		_ = end
	})
	r.stop()
}

// An operation whose intent finds no space has not begun, and nothing waits.
func TestNoSpaceForTheIntent(t *testing.T) {
	r := boot(t, furnished(t))
	r.task(func() {
		before, first := r.contents(), r.h.steps+1
		for at := first; at < first+3; at++ { // the file is made, written and flushed
			r.h.breaks = func(step int) error {
				if step >= at {
					return syscall.ENOSPC
				}
				return nil
			}
			r.h.steps = first - 1
			if err := r.m.Reset(ctx, "a"); !errors.Is(err, syscall.ENOSPC) {
				t.Errorf("step %d: %v", at, err)
			}
			if ops := r.m.Operations(); len(ops) > 0 {
				t.Errorf("step %d: %+v", at, ops)
			}
			r.h.breaks = nil
			if now := r.contents(); diff(now, before) != "" {
				t.Error(diff(now, before))
			}
		}
		r.ok(r.m.Reset(ctx, "a"))
	})
	r.stop()
	again := boot(t, r.h.clone())
	again.task(func() { again.ok(again.check()) })
	again.stop()
}

// Commands that go around the manager wait for short operations on a device, and are
// refused while a long one is about it or what it is a part of.
func TestAlone(t *testing.T) {
	r := boot(t, furnished(t))
	r.task(func() {
		r.unreadable("/img/j.img")
		op, _ := r.background(func(m *Manager) error { return m.CopyIn(ctx, "/img/j.img", "b") })
		ran := false
		for _, name := range []string{"b", "b-real"} {
			err := r.m.Alone(ctx, name, func() error { ran = true; return nil })
			if !errors.Is(err, syscall.EBUSY) || !strings.Contains(err.Error(), "copy is in progress") || ran {
				t.Errorf("%s: %v", name, err)
			}
		}
		want := dm.Errorf(syscall.EIO, "its own")
		if err := r.m.Alone(ctx, "a", func() error { return want }); err != want {
			t.Errorf("a: %v", err)
		}
		r.ok(r.m.Cancel(ctx, op.ID))
		r.ok(r.m.Alone(ctx, "b", func() error { return nil }))
		r.ok(r.m.Reset(ctx, "a"))
	})
	r.stop()
}

// What nobody uses any more is listed with its bytes, and removed.
func TestRemoveOrphans(t *testing.T) {
	r := boot(t, furnished(t))
	r.task(func() {
		r.ok(r.m.Remove(ctx, RemoveSpec{Name: "a", Keep: true}))
		r.ok(r.m.Remove(ctx, RemoveSpec{Name: "vs", Keep: true}))
		list, err := r.m.Orphans()
		if r.ok(err); len(list) != 2 || list[0].Bytes == 0 || list[1].Pool != "p" {
			t.Errorf("%+v", list)
		}
		for _, o := range list {
			r.ok(r.m.RemoveOrphan(ctx, o))
			if err := r.m.RemoveOrphan(ctx, o); !errors.Is(err, syscall.EBUSY) {
				t.Errorf("%s twice: %v", o, err)
			}
		}
		if err := r.m.RemoveOrphan(ctx, Orphan{File: "/udm/stores/b.cow"}); !errors.Is(err, syscall.EBUSY) {
			t.Errorf("what is in use: %v", err)
		}
		r.ok(r.check())
	})
	r.stop()
}

// Objects tell how many bytes of their pool or of files they take.
func TestUsage(t *testing.T) {
	r := boot(t, furnished(t))
	r.task(func() {
		r.ok(r.m.CreateVolume(ctx, VolumeSpec{Pool: "p", Name: "new", Size: 1 << 20}))
		for _, o := range r.m.Objects() {
			want := map[string]uint64{"v": 64 << 10, "vs": 64 << 10, "new": 0}[o.Name]
			switch {
			case o.Kind == Volume && o.Own+o.Shared != want:
				t.Errorf("%s takes %d bytes and shares %d, want %d", o.Name, o.Own, o.Shared, want)
			case o.Kind == Clone && (o.Own == 0 || o.Own > storeSize(o.Bytes/blk.SectorSize)):
				t.Errorf("%s takes %d bytes", o.Name, o.Own)
			}
		}
	})
	r.stop()
}
