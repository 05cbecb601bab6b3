package volume

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

// Operations at once leave everything in order, and what none of them is about as
// it was.
func TestTogether(t *testing.T) {
	h := furnished(t)
	rounds := 40
	if testing.Short() {
		rounds = 8
	}
	for round := range rounds {
		r := boot(t, h.clone())
		rng := rand.New(rand.NewPCG(uint64(round), 9))
		done, refused := 0, 0
		r.task(func() {
			before := r.contents()
			left := 64
			for i := range 64 {
				do := drawn(rng, i)
				r.sim.Go("operation", func() {
					err := do(r.m)
					var no *Refusal
					switch {
					case err == nil:
						done++
					case errors.As(err, &no):
						refused++
					default:
						t.Errorf("round %d: %v", round, err)
					}
					left--
				})
			}
			r.sim.NewWait().Until(func() bool { return left == 0 })
			r.settle()
			r.ok(r.check())
			now := r.contents()
			for _, name := range []string{"ds2", "l", "/img/i.img", "/img/j.img"} {
				if now[name] != before[name] {
					t.Errorf("round %d: %s is %s, want %s", round, name, now[name], before[name])
				}
			}
		})
		r.stop()
		again := boot(t, r.h.clone())
		again.task(func() { again.ok(again.check()) })
		again.stop()
		if done == 0 || refused == 0 {
			t.Errorf("round %d: %d are done, %d refused", round, done, refused)
		}
	}
}

// drawn is a random operation on few objects, none of them ds2, l or an image.
func drawn(r *rand.Rand, i int) func(m *Manager) error {
	names := []string{"a", "b", "d", "e", "f", "v", "n0", "n1", "n2", "n3", "n4", "n5"}
	x, y := names[r.IntN(len(names))], names[6+r.IntN(6)]
	switch r.IntN(9) {
	case 0:
		return func(m *Manager) error {
			return m.Clone(ctx, CloneSpec{Base: "/img/i.img", Names: []string{y, fmt.Sprint("c", i)}})
		}
	case 1:
		return func(m *Manager) error {
			return m.Clone(ctx, CloneSpec{Base: "/img/j.img", Names: []string{y}, Pool: "p"})
		}
	case 2, 3:
		return func(m *Manager) error { return m.Snapshot(ctx, SnapshotSpec{Of: x, Names: []string{y}}) }
	case 4:
		return func(m *Manager) error { return m.Merge(ctx, y) }
	case 5:
		return func(m *Manager) error { return m.Reset(ctx, y) }
	case 6:
		return func(m *Manager) error { return m.Rename(ctx, y, names[6+r.IntN(6)]) }
	case 7:
		return func(m *Manager) error { return m.Resize(ctx, ResizeSpec{Name: y, Size: 300 << 9}) }
	}
	return func(m *Manager) error { return m.Remove(ctx, RemoveSpec{Name: x}) }
}

// A batch of thousands of clones is one operation.
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
		start := time.Now()
		r.ok(r.m.Clone(ctx, CloneSpec{Base: "/img/i.img", Names: names}))
		t.Logf("%v for each of %d clones", time.Since(start)/time.Duration(n), n)
		if got := len(r.m.Objects()); got != n {
			t.Errorf("%d objects", got)
		}
		r.ok(r.check())
	})
	r.stop()
}
