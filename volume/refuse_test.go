package volume

import (
	"errors"
	"strings"
	"syscall"
	"testing"

	"udm/blk"
)

// What others depend on is neither written to nor removed, and a refusal changes
// nothing.
func TestRefusals(t *testing.T) {
	h := furnished(t)
	for _, c := range []struct {
		name string
		do   func(m *Manager) error
		want syscall.Errno
		text string
	}{
		{"merge into an image of others", func(m *Manager) error { return m.Merge(ctx, "a") }, syscall.EBUSY, "depends on /img/i.img"},
		{"merge of a longer clone", func(m *Manager) error { return m.Merge(ctx, "l") }, syscall.EINVAL, "flatten it"},
		{"merge of a disk", func(m *Manager) error { return m.Merge(ctx, "e") }, syscall.EINVAL, "only clones and snapshots can be merged"},
		{"merge of a volume that is not a snapshot", func(m *Manager) error { return m.Merge(ctx, "v") }, syscall.EINVAL, "is not a snapshot"},
		{"remove with snapshots", func(m *Manager) error { return m.Remove(ctx, RemoveSpec{Name: "d"}) }, syscall.EBUSY, "ds and ds2 depend on d"},
		{"remove a pool in use", func(m *Manager) error { return m.Remove(ctx, RemoveSpec{Name: "p"}) }, syscall.EBUSY, "v and vs depend on p"},
		{"remove a part", func(m *Manager) error { return m.Remove(ctx, RemoveSpec{Name: "d-real"}) }, syscall.EBUSY, "part of d"},
		{"reset with a snapshot", func(m *Manager) error { return m.Reset(ctx, "b") }, syscall.EBUSY, "bs depends on b"},
		{"remove several, one with a snapshot", func(m *Manager) error {
			return m.Remove(ctx, RemoveSpec{Names: []string{"a", "e", "b"}})
		}, syscall.EBUSY, "bs depends on b"},
		{"remove several, one a snapshot", func(m *Manager) error {
			return m.Remove(ctx, RemoveSpec{Names: []string{"a", "ds"}})
		}, syscall.EINVAL, "remove it alone"},
		{"remove several, one of which does not exist", func(m *Manager) error {
			return m.Remove(ctx, RemoveSpec{Names: []string{"a", "nosuch"}})
		}, syscall.ENXIO, "nosuch"},
		{"remove nothing", func(m *Manager) error { return m.Remove(ctx, RemoveSpec{}) }, syscall.EINVAL, "give the name"},
		{"reset nothing", func(m *Manager) error { return m.Reset(ctx) }, syscall.EINVAL, "give the name"},
		{"reset several, one a disk", func(m *Manager) error { return m.Reset(ctx, "a", "l", "e") }, syscall.EINVAL, "is a disk"},
		{"reset a disk", func(m *Manager) error { return m.Reset(ctx, "e") }, syscall.EINVAL, "is a disk"},
		{"shrink a pool", func(m *Manager) error { return m.GrowPool(ctx, "p", 1<<20, 0) }, syscall.EINVAL, "cannot shrink"},
		{"shrink a volume", func(m *Manager) error { return m.Resize(ctx, ResizeSpec{Name: "v", Size: 512}) }, syscall.EINVAL, "--shrink"},
		{"shrink a clone", func(m *Manager) error { return m.Resize(ctx, ResizeSpec{Name: "a", Size: 512, Shrink: true}) }, syscall.EINVAL, "flatten it"},
		{"a name that is taken", func(m *Manager) error {
			return m.Clone(ctx, CloneSpec{Base: "/img/i.img", Names: []string{"new", "a"}})
		}, syscall.EEXIST, "named a exists already"},
		{"a smaller clone", func(m *Manager) error {
			return m.Clone(ctx, CloneSpec{Base: "/img/i.img", Names: []string{"new"}, Size: 512})
		}, syscall.EINVAL, "smaller than its base"},
		{"clone of a file that is written to", func(m *Manager) error {
			return m.Clone(ctx, CloneSpec{Base: "/img/e.img", Names: []string{"new"}})
		}, syscall.EBUSY, "e writes to /img/e.img"},
		{"a store as an image", func(m *Manager) error {
			return m.Clone(ctx, CloneSpec{Base: "/udm/stores/a.cow", Names: []string{"new"}})
		}, syscall.EINVAL, "snapshot store"},
		{"an image as a store", func(m *Manager) error {
			return m.Clone(ctx, CloneSpec{Base: "/img/j.img", Names: []string{"new"}, Store: "/img/k.img"})
		}, syscall.EINVAL, "holds other data"},
		{"a store in use", func(m *Manager) error {
			return m.Clone(ctx, CloneSpec{Base: "/img/j.img", Names: []string{"new"}, Store: "/udm/stores/a.cow"})
		}, syscall.EBUSY, "the store of a"},
		{"a clone of a writable device in a pool", func(m *Manager) error {
			return m.Clone(ctx, CloneSpec{Base: "e", Names: []string{"new"}, Pool: "p"})
		}, syscall.EINVAL, "commit it into an image first"},
		{"a relative image", func(m *Manager) error {
			return m.Clone(ctx, CloneSpec{Base: "img/i.img", Names: []string{"new"}})
		}, syscall.ENXIO, "absolute path"},
		{"a relative store", func(m *Manager) error {
			return m.Clone(ctx, CloneSpec{Base: "/img/i.img", Names: []string{"new"}, Store: "s.cow"})
		}, syscall.EINVAL, "not an absolute path"},
		{"a relative store of a snapshot", func(m *Manager) error {
			return m.Snapshot(ctx, SnapshotSpec{Of: "e", Names: []string{"new"}, Store: "s.cow"})
		}, syscall.EINVAL, "not an absolute path"},
		{"a relative directory", func(m *Manager) error { return m.CreatePool(ctx, PoolSpec{Name: "new", Size: 1 << 20, Dir: "d"}) }, syscall.EINVAL, "not an absolute path"},
		{"a relative file", func(m *Manager) error { return m.Flatten(ctx, "a", "new.img") }, syscall.EINVAL, "not an absolute path"},
		{"a relative copy", func(m *Manager) error { return m.CopyOut(ctx, "a", "new.img") }, syscall.EINVAL, "not an absolute path"},
		{"a relative source", func(m *Manager) error { return m.CopyIn(ctx, "j.img", "a") }, syscall.EINVAL, "not an absolute path"},
		{"nothing", func(m *Manager) error { return m.Merge(ctx, "nosuch") }, syscall.ENXIO, "no device named"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := boot(t, h.clone())
			r.task(func() {
				r.image("k.img", 64)
				before, steps := r.contents(), r.h.steps
				err := c.do(r.m)
				if !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.text) || strings.Contains(err.Error(), "\n") {
					t.Errorf("%v", err)
				}
				if now := r.contents(); diff(now, before) != "" || r.h.steps != steps {
					t.Errorf("%d steps, %s", r.h.steps-steps, diff(now, before))
				}
			})
			r.stop()
		})
	}
}

// Formats are told by what is in a file, not by its name.
func TestFormats(t *testing.T) {
	head := func(at int, text string) []byte {
		p := make([]byte, 4096)
		copy(p[at:], text)
		return p
	}
	for _, c := range []struct {
		at         int
		magic, say string
	}{
		{0, "QFI\xfb", "qcow2"}, {0, "KDMV", "VMDK"}, {0, "# Disk DescriptorFile", "VMDK"}, {64, "\x7f\x10\xda\xbe", "VDI"},
		{0, "vhdxfile", "VHDX"}, {0, "SnAp", "store"}, {32, "\x4a\x99\x9b\x01", "thin pool"},
	} {
		err := raw("/x.img", head(c.at, c.magic))
		if err == nil || !strings.Contains(err.Error(), c.say) {
			t.Errorf("%s: %v", c.say, err)
		}
	}
	for _, p := range [][]byte{nil, head(1, "QFI\xfb"), head(510, "\x55\xaa")} {
		if err := raw("/x.img", p); err != nil {
			t.Error(err)
		}
	}
	if err := emptyOr("/x", storeMagic, head(510, "\x55\xaa")); err == nil || !strings.Contains(err.Error(), "partition table") {
		t.Errorf("a partition table: %v", err)
	}
}

// A base that changes is told of, and nothing is merged into it; a store that was
// kept is for its own base only.
func TestBases(t *testing.T) {
	r := boot(t, furnished(t))
	r.task(func() {
		if text := r.m.Changed("x"); text != "" {
			t.Errorf("untouched: %s", text)
		}
		r.h.names["/img/j.img"].modTime += 5 // touched
		if text := r.m.Changed("x"); text != "" {
			t.Errorf("touched: %s", text)
		}
		r.ok(r.m.Remove(ctx, RemoveSpec{Name: "a", Keep: true}))
		store := "/udm/stores/a.cow"
		err := r.m.Clone(ctx, CloneSpec{Base: "/img/j.img", Names: []string{"a"}, Store: store})
		if !errors.Is(err, syscall.ESTALE) {
			t.Errorf("a store of another image: %v", err)
		}
		list, err := r.m.Orphans()
		if r.ok(err); len(list) != 1 || list[0].File != store || list[0].Base != "/img/i.img" {
			t.Errorf("orphans: %+v", list)
		}
		for range 2 { // what notes whose the store is goes, and comes again
			r.ok(r.m.Clone(ctx, CloneSpec{Base: "/img/i.img", Names: []string{"a"}, Store: store}))
			r.ok(r.m.Remove(ctx, RemoveSpec{Name: "a", Keep: true}))
		}
		r.ok(r.m.Clone(ctx, CloneSpec{Base: "/img/i.img", Names: []string{"a"}, Store: store}))
		if r.h.names[store+noteSuffix] != nil {
			t.Error("the store of a clone still has a note")
		}
		n := r.h.names["/img/j.img"]
		n.modTime++
		r.ok(blk.WriteSectors(r.sim, n.dev, make([]byte, 512), 0, blk.FUA))
		if text := r.m.Changed("x"); !strings.Contains(text, "was changed") {
			t.Errorf("changed: %q", text)
		}
		if err := r.m.Merge(ctx, "x"); !errors.Is(err, syscall.ESTALE) {
			t.Errorf("merge into a changed base: %v", err)
		}
	})
	r.stop()
}
