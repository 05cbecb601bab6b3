package volume

import (
	"slices"
	"strings"
	"testing"
)

// siblings are two objects of each kind, which depend on the same image, pool or
// object, with what can be done to the first of each; what else changes by that is
// named.
var siblings = []struct {
	kind, first string
	do          map[string][]string // operation: what it may change beside the object
}{
	{"clone", "c1", map[string][]string{"reset": nil, "resize": nil, "remove": nil, "flatten": nil, "commit": nil, "rename": nil}},
	{"longer clone", "l1", map[string][]string{"reset": nil, "resize": nil, "remove": nil, "flatten": nil, "commit": nil, "rename": nil}},
	{"clone of a device", "r1", map[string][]string{"reset": nil, "resize": nil, "remove": nil, "flatten": nil, "commit": nil}},
	{"clone with snapshots", "b", map[string][]string{"rename": nil, "snapshot": nil}},
	{"snapshot of a clone", "b1", map[string][]string{"merge": {"b"}, "remove": nil, "rename": nil, "snapshot": nil}},
	{"snapshot of a disk", "d1", map[string][]string{"merge": {"d", "/img/d.img"}, "remove": nil, "rename": nil, "snapshot": nil}},
	{"snapshot of a snapshot", "s1", map[string][]string{"merge": {"d2"}, "remove": nil}},
	{"volume", "v1", map[string][]string{"reset": nil, "resize": nil, "remove": nil, "flatten": nil, "commit": nil, "rename": nil, "snapshot": nil}},
	{"snapshot of a volume", "w1", map[string][]string{"merge": {"v1"}, "reset": nil, "resize": nil, "remove": nil, "flatten": nil, "commit": nil}},
	{"clone alone on its image", "x1", map[string][]string{"merge": {"/img/k.img"}, "reset": nil, "flatten": nil, "commit": nil}},
	{"disk", "d", map[string][]string{"rename": nil, "snapshot": nil}},
	{"disk alone", "e", map[string][]string{"resize": {"/img/e.img"}, "flatten": nil, "commit": nil, "remove": nil, "snapshot": nil}},
}

var onObject = map[string]func(m *Manager, name string) error{
	"merge":   func(m *Manager, name string) error { return m.Merge(ctx, name) },
	"reset":   func(m *Manager, name string) error { return m.Reset(ctx, name) },
	"resize":  func(m *Manager, name string) error { return m.Resize(ctx, ResizeSpec{Name: name, Size: 256 << 9}) },
	"remove":  func(m *Manager, name string) error { return m.Remove(ctx, RemoveSpec{Name: name}) },
	"flatten": func(m *Manager, name string) error { return m.Flatten(ctx, name, "/img/new.img") },
	"commit":  func(m *Manager, name string) error { return m.Commit(ctx, name, "/img/new.img") },
	"rename":  func(m *Manager, name string) error { return m.Rename(ctx, name, "other") },
	"snapshot": func(m *Manager, name string) error {
		return m.Snapshot(ctx, SnapshotSpec{Of: name, Names: []string{"other"}})
	},
}

// house is a host with siblings of every kind, each written to.
func house(t *testing.T) *host {
	r := boot(t, newHost())
	r.task(func() {
		r.image("i.img", 128)
		r.image("k.img", 128)
		for _, n := range []string{"d", "e", "r"} {
			r.ok(r.k.Create(ctx, []Device{{Name: n, Table: linearTable(r.image(n+".img", 96), 96), ReadOnly: n == "r"}}))
		}
		r.ok(r.m.CreatePool(ctx, PoolSpec{Name: "p", Size: 4 << 20}))
		for _, s := range []CloneSpec{
			{Base: "/img/i.img", Names: []string{"c1", "c2", "b"}}, {Base: "/img/i.img", Names: []string{"l1", "l2"}, Size: 160 << 9},
			{Base: "r", Names: []string{"r1", "r2"}}, {Base: "/img/i.img", Names: []string{"v1", "v2"}, Pool: "p"},
			{Base: "/img/k.img", Names: []string{"x1"}},
		} {
			r.ok(r.m.Clone(ctx, s))
		}
		written := []string{"c1", "c2", "b", "l1", "l2", "r1", "r2", "v1", "v2", "x1", "d", "e"}
		seed := uint64(100)
		write := func(names []string) {
			for _, n := range names {
				seed++
				r.write(n, seed%60, 20, seed)
			}
		}
		write(written)
		for _, s := range []SnapshotSpec{
			{Of: "b", Names: []string{"b1", "b2"}}, {Of: "d", Names: []string{"d1", "d2"}},
			{Of: "v1", Names: []string{"w1", "w2"}}, {Of: "d2", Names: []string{"s1", "s2"}},
		} {
			r.ok(r.m.Snapshot(ctx, s))
			write(s.Names)
			write(written)
		}
		r.ok(r.check())
	})
	r.stop()
	return r.h.clone()
}

// Whatever is done to an object, all others, of every kind, read what they read
// before, and do so after a restart.
func TestSiblings(t *testing.T) {
	h := house(t)
	for _, s := range siblings {
		for op, changes := range s.do {
			t.Run(op+" of a "+s.kind, func(t *testing.T) {
				r := boot(t, h.clone())
				var before map[string]string
				same := func(r *rig) {
					now := r.contents()
					for name, want := range before {
						part := strings.HasSuffix(name, realSuffix) || strings.HasSuffix(name, baseSuffix)
						if name != s.first && !part && !slices.Contains(changes, name) && now[name] != want {
							t.Errorf("%s reads %s, want %s", name, now[name], want)
						}
					}
					r.ok(r.check())
				}
				r.task(func() {
					before = r.contents()
					r.ok(onObject[op](r.m, s.first))
					r.settle()
					same(r)
				})
				r.stop()
				again := boot(t, r.h.clone())
				again.task(func() { same(again) })
				again.stop()
			})
		}
	}
}
