package volume

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"udm/blk"
	"udm/blk/leaf"
	"udm/dm"
	"udm/env"
	"udm/env/hostfs"
	"udm/targets/all"
)

var rounds = flag.Int("rounds", 1000, "how many rounds of operations at once, of 64 each, without -short")

// atOnce is how many operations are under way at the same time, manyNames how many
// names they are about.
const atOnce, manyNames = 64, 40

// drawing draws operations about few names.
type drawing struct {
	*model
	rng *rand.Rand
	dir string // of images
	new int    // images so far
}

func (d *drawing) name() string { return fmt.Sprint("n", d.rng.IntN(manyNames)) }

// someImage is one that was there when the round began, mostly.
func (d *drawing) someImage() string {
	if d.rng.IntN(3) > 0 || d.new == 0 {
		return d.dir + []string{"/i.img", "/j.img"}[d.rng.IntN(2)]
	}
	return fmt.Sprintf("%s/m%d.img", d.dir, d.rng.IntN(d.new))
}

func (d *drawing) newImage() string {
	d.new++
	return fmt.Sprintf("%s/m%d.img", d.dir, d.new-1)
}

func (d *drawing) draw() entered {
	x, y := d.name(), d.name()
	switch k := d.rng.IntN(32); {
	case k < 4:
		return d.clone(CloneSpec{Base: d.someImage(), Names: []string{x}, Size: d.rng.Uint64N(2) * 200 * blk.SectorSize})
	case k < 6:
		return d.clone(CloneSpec{Base: d.someImage(), Names: []string{x}, Pool: "p"})
	case k < 10:
		return d.snapshot(SnapshotSpec{Of: x, Names: []string{y}})
	case k < 14:
		return d.merge(x)
	case k < 16:
		return d.reset(x)
	case k < 18:
		return d.rename(x, y)
	case k < 20:
		return d.resize(ResizeSpec{Name: x, Size: (96 + d.rng.Uint64N(200)) * blk.SectorSize})
	case k < 23:
		return d.remove(RemoveSpec{Name: x})
	case k < 24:
		return d.move(x, d.newImage(), d.rng.IntN(2) == 0)
	case k < 25:
		return d.copyOut(x, d.newImage())
	case k < 26:
		return d.copyIn(d.someImage(), x)
	case k < 27:
		return d.drop(fmt.Sprintf("%s/m%d.img", d.dir, d.rng.IntN(d.new+1)))
	}
	return d.write(&scribble{x, d.rng.Uint64N(80), 1 + d.rng.Uint64N(16), 3 + d.rng.Uint64N(1<<20)})
}

// outcomes counts how operations ended.
type outcomes struct {
	sync.Mutex
	done, refused int
	wrong         []error
}

func (n *outcomes) count(err error) {
	n.Lock()
	defer n.Unlock()
	var no *Refusal
	switch {
	case err == nil:
		n.done++
	case errors.As(err, &no), errors.Is(err, syscall.ENOENT): // of an image that is gone
		n.refused++
	default:
		n.wrong = append(n.wrong, err)
	}
}

// Whatever operations run at once, names and contents are what the same operations
// make one after the other, and a restart finds them.
func TestTogether(t *testing.T) {
	n := *rounds
	if testing.Short() {
		n = 8
	}
	h, md := newHost(), newModel()
	d := &drawing{model: md, dir: "/img"}
	var sum outcomes
	for round := range n {
		r := boot(t, h)
		d.rng = rand.New(rand.NewPCG(uint64(round), 9))
		slow := rand.New(rand.NewPCG(uint64(round), 10))
		r.task(func() {
			if round == 0 {
				r.ok(md.start(r.m, "/img"))
			}
			h.pause = func() { r.sleep(time.Duration(slow.IntN(300)) * time.Microsecond) }
			left := atOnce
			for range atOnce {
				c := d.draw()
				r.sim.Go("operation", func() {
					sum.count(r.m.run(ctx, c))
					left--
				})
			}
			r.sim.NewWait().Until(func() bool { return left == 0 })
			h.pause = nil
			r.settle()
			if err := errors.Join(append(sum.wrong, md.compare(r.m), r.check())...); err != nil {
				t.Fatalf("round %d: %v", round, err)
			}
		})
		r.stop()
		h = r.h.clone()
	}
	t.Logf("%d rounds: %d operations are done, %d refused", n, sum.done, sum.refused)
	if sum.done < n*atOnce/8 || sum.refused == 0 {
		t.Error("that is not what operations at once are about")
	}
}

// TestTogetherInThreads is TestTogether with threads and files of this machine.
func TestTogetherInThreads(t *testing.T) {
	n := min(*rounds, 100)
	if testing.Short() {
		n = 3
	}
	dir := t.TempDir()
	md := newModel()
	d := &drawing{model: md, dir: filepath.Join(dir, "img")}
	var sum outcomes
	for round := range n {
		m, c := bootReal(t, dir)
		if round == 0 {
			must(t, md.start(m, d.dir))
		}
		d.rng = rand.New(rand.NewPCG(uint64(round), 11))
		var all sync.WaitGroup
		for range atOnce {
			c := d.draw()
			all.Go(func() { sum.count(m.run(ctx, c)) })
		}
		all.Wait()
		env.Real().NewWait().Until(func() bool { return settled(m) })
		if err := errors.Join(append(sum.wrong, md.compare(m))...); err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		m.Close()
		must(t, c.Close())
	}
	t.Logf("%d rounds: %d operations are done, %d refused", n, sum.done, sum.refused)
}

// bootReal starts a manager on a directory of this machine.
func bootReal(t *testing.T, dir string) (*Manager, *dm.Control) {
	t.Helper()
	e := env.Real()
	c := dm.NewControl(e, leaf.New(e), all.Types()...)
	k, err := newKept(c, hostfs.Disk{}, filepath.Join(dir, "devices"))
	must(t, err)
	m := New(Machine{Env: e, Devices: k, Files: HostFiles{}, FS: hostfs.Disk{}, Root: dir, Log: slog.New(slog.DiscardHandler)})
	must(t, m.Recover(ctx))
	return m, c
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// The first snapshots of a disk may be taken at the same time: the disk is made an origin
// once, and all of them read what it had.
func TestFirstSnapshotsAtOnce(t *testing.T) {
	for delay := range time.Duration(8) {
		r := boot(t, newHost())
		r.task(func() {
			r.ok(r.k.Create(ctx, []Device{{Name: "d", Table: linearTable(r.image("d.img", 96), 96)}}))
			r.write("d", 5, 20, 7)
			before := strings.TrimPrefix(r.contents()["d"], "disk ")
			r.h.pause = func() { r.sleep(100 * time.Microsecond) }
			left := 3
			for i := range 3 {
				r.sim.Go("snapshot", func() {
					r.sleep(time.Duration(i) * delay * 50 * time.Microsecond)
					r.ok(r.m.Snapshot(ctx, SnapshotSpec{Of: "d", Names: []string{fmt.Sprint("s", i)}}))
					left--
				})
			}
			r.sim.NewWait().Until(func() bool { return left == 0 })
			r.h.pause = nil
			r.write("d", 0, 96, 8)
			now := r.contents()
			for _, name := range []string{"s0", "s1", "s2"} {
				if want := "snapshot " + before; now[name] != want {
					t.Errorf("%s reads %s, want %s", name, now[name], want)
				}
			}
			r.ok(r.check())
		})
		r.stop()
	}
}

// Thousands of clones are made, reset and removed in one operation each.
func TestBatch(t *testing.T) {
	n := 4096
	if testing.Short() {
		n = 256
	}
	r := boot(t, newHost())
	r.task(func() {
		r.image("i.img", 128)
		names := make([]string, n)
		for i := range names {
			names[i] = fmt.Sprint("vm", i)
		}
		r.ok(r.m.Clone(context.Background(), CloneSpec{Base: "/img/i.img", Names: names}))
		if got := len(r.m.Objects()); got != n {
			t.Errorf("%d objects", got)
		}
		r.ok(r.check())
		empty := r.contents()
		for i := 0; i < n; i += 16 {
			r.write(names[i], 3, 2, 5)
		}
		r.ok(r.m.Reset(ctx, names...))
		if d := diff(r.contents(), empty); d != "" {
			t.Error(d)
		}
		r.ok(r.check())
		r.ok(r.m.Remove(ctx, RemoveSpec{Names: names}))
		if got := len(r.m.Objects()); got != 0 {
			t.Errorf("%d objects are left", got)
		}
		r.ok(r.check())
	})
	r.stop()
}

// If one of several objects is in use, none is removed.
func TestRemoveSeveralOneOpen(t *testing.T) {
	r := boot(t, furnished(t))
	r.task(func() {
		before := r.contents()
		d, err := r.c.Name("l")
		r.ok(err)
		h, err := d.Open(false)
		r.ok(err)
		err = r.m.Remove(ctx, RemoveSpec{Names: []string{"a", "l", "vs"}})
		r.ok(h.Close())
		if !errors.Is(err, syscall.EBUSY) {
			t.Errorf("%v", err)
		}
		if d := diff(r.contents(), before); d != "" {
			t.Error(d)
		}
		r.ok(r.check())
		r.ok(r.m.Remove(ctx, RemoveSpec{Names: []string{"a", "l", "vs", "a"}}))
		r.ok(r.check())
	})
	r.stop()
}

// A snapshot is no clone while its origin is being renamed: it cannot be reset at any
// moment of that.
func TestSnapshotOfRenamed(t *testing.T) {
	for moment := range 60 {
		r := boot(t, furnished(t))
		r.task(func() {
			r.ok(r.m.Snapshot(ctx, SnapshotSpec{Of: "a", Names: []string{"moment"}}))
			r.h.pause = func() { r.sleep(time.Millisecond) }
			renamed := false
			r.sim.Go("rename", func() {
				r.ok(r.m.Rename(ctx, "a", "renamed"))
				renamed = true
			})
			r.sleep(time.Duration(moment) * 500 * time.Microsecond)
			if err := r.m.Reset(ctx, "moment"); !refused(err) {
				t.Errorf("moment %d: a snapshot was reset: %v", moment, err)
			}
			r.sim.NewWait().Until(func() bool { return renamed })
			r.h.pause = nil
			r.settle()
			r.ok(r.check())
		})
		r.stop()
	}
}

func refused(err error) bool {
	var no *Refusal
	return errors.As(err, &no)
}
