package volume

import (
	"errors"
	"strings"
	"syscall"
	"testing"

	"udm/blk"
	"udm/dm"
	"udm/targets/clone"
)

// TestLazyClone uses a clone while its source is copied, and when the source is gone.
func TestLazyClone(t *testing.T) {
	r := boot(t, newHost())
	r.task(func() {
		image := r.image("i.img", 1000)
		r.ok(r.m.Clone(ctx, CloneSpec{Base: image, Names: []string{"a"}, Size: 1200 << 9, Lazy: true, Labels: map[string]string{"k": "v"}}))
		r.kind("a", Hydrating, image)
		r.message("a", "hydration_threshold 0")
		r.write("a", 100, 40, 7)
		r.write("a", 990, 40, 8)
		r.ok(r.m.Snapshot(ctx, SnapshotSpec{Of: "a", Names: []string{"s"}}))
		r.write("a", 300, 9, 9)
		r.ok(r.m.Rename(ctx, "a", "b"))
		r.kind("b", Hydrating, image)
		for what, err := range map[string]error{
			"flatten": r.m.Flatten(ctx, "b", "/img/new.img"), "commit": r.m.Commit(ctx, "b", "/img/new.img"),
			"resize": r.m.Resize(ctx, ResizeSpec{Name: "b", Size: 2000 << 9}), "reset": r.m.Reset(ctx, "b"), "merge": r.m.Merge(ctx, "b"),
		} {
			if no := (*Refusal)(nil); !errors.As(err, &no) {
				t.Errorf("%s of a hydrating clone: %v", what, err)
			}
		}
		sums := func() string { return r.sumOf("b") + r.sumOf("s") }
		before := sums()
		r.settle()
		r.kind("b", Disk, "")
		r.ok(r.m.files.Remove([]string{image}))
		if after := sums(); after != before {
			t.Errorf("the clone and its snapshot hold %s, and did hold %s", after, before)
		}
		r.ok(r.check())
		r.ok(r.m.Remove(ctx, RemoveSpec{Name: "s"}))
		r.ok(r.m.Remove(ctx, RemoveSpec{Name: "b"}))
		r.ok(r.check())
		if left := r.h.files(); len(left) > 0 {
			t.Errorf("files are left: %q", left)
		}
	})
	r.stop()
}

func (r *rig) sumOf(name string) string {
	r.t.Helper()
	d, err := r.c.Name(name)
	r.ok(err)
	h, err := d.Open(false)
	r.ok(err)
	defer h.Close()
	return name + " " + r.sum(h) + " "
}

func (r *rig) message(name, text string) {
	r.t.Helper()
	d, err := r.c.Name(name)
	r.ok(err)
	_, err = d.Message(0, text)
	r.ok(err)
}

func (r *rig) kind(name string, kind Kind, base string) {
	r.t.Helper()
	o, err := r.m.Object(name)
	r.ok(err)
	if o.Kind != kind || o.Base != base || o.State != "active" {
		r.t.Errorf("%s is %+v, want a %s of %q", name, o, kind, base)
	}
}

// TestSourceVanishes: what is here is there while the source fails, also after a restart,
// and when it is back the rest comes.
func TestSourceVanishes(t *testing.T) {
	r := boot(t, newHost())
	source := func(table string) {
		specs, err := dm.ParseTable(table)
		r.ok(err)
		r.ok(r.k.Swap(ctx, []Device{{Name: "src", Table: specs, ReadOnly: true}}, false))
	}
	r.task(func() {
		image := r.image("i.img", 512)
		r.ok(r.k.Create(ctx, []Device{{Name: "src", ReadOnly: true, Table: linearTable(image, 512)}}))
		r.ok(r.m.Clone(ctx, CloneSpec{Base: "src", Names: []string{"a"}, Lazy: true}))
		r.message("a", "hydration_threshold 0")
		r.write("a", 0, 128, 3)
		source("0 512 error")
		r.message("a", "hydration_threshold 4")
		r.sleep(5e9)
		r.kind("a", Hydrating, "src")
		r.reads("a", 0, 128, nil)
		r.reads("a", 128, 8, blk.IOErr)
	})
	h := r.h.clone()
	r.stop()
	r = boot(t, h)
	r.task(func() {
		r.kind("a", Hydrating, "src")
		r.reads("a", 0, 128, nil)
		r.reads("a", 128, 8, blk.IOErr)
		d, err := r.c.Name("a")
		r.ok(err)
		if st, err := clone.ParseStatus(d.Lines(dm.Info, false, 0)[0].Params); err != nil || st.Hydrated != 1 || st.ReadOnly {
			t.Errorf("%+v, %v", st, err)
		}
		source("0 512 linear /img/i.img 0")
		r.settle()
		r.kind("a", Disk, "")
		r.ok(r.m.Remove(ctx, RemoveSpec{Name: "src"}))
		r.ok(r.check())
	})
	r.stop()
}

func (r *rig) reads(name string, at, sectors uint64, want error) {
	r.t.Helper()
	d, err := r.c.Name(name)
	r.ok(err)
	h, err := d.Open(false)
	r.ok(err)
	if err := blk.ReadSectors(r.sim, h, make([]byte, sectors*blk.SectorSize), at); !errors.Is(err, want) {
		r.t.Errorf("read of %s %d+%d: %v, want %v", name, at, sectors, err, want)
	}
	r.ok(h.Close())
}

// TestMetadataOutliveTheirTable: as long as the table of an object is one that hydrates it,
// saved or live, its metadata are there: if the next table is refused, it goes on with them.
func TestMetadataOutliveTheirTable(t *testing.T) {
	r := boot(t, newHost())
	r.task(func() {
		image := r.image("i.img", 300)
		r.ok(r.m.Clone(ctx, CloneSpec{Base: image, Names: []string{"a"}, Lazy: true}))
		d, err := r.c.Name("a")
		r.ok(err)
		meta := r.k.Record("a").Files[1]
		finishes := false
		r.h.breaks = func(int) error {
			finishes = finishes || r.m.underWay("finish", "a") != nil
			specs, _, _ := d.Loaded(false)
			saved, _ := r.k.fs.ReadFile(r.k.file(d))
			if needed := specs[0].Type == "clone" || strings.Contains(string(saved), meta); needed && r.h.names[meta] == nil {
				t.Error("the metadata are gone before the table that uses them")
				r.h.breaks = nil
			}
			return nil
		}
		r.settle()
		if !finishes || r.h.names[meta] != nil {
			t.Errorf("finished: %v; of the metadata there is %v", finishes, r.h.names[meta])
		}
		r.ok(r.check())
	})
	r.stop()
}

// TestLazyRefusals has what is refused, and that it leaves nothing.
func TestLazyRefusals(t *testing.T) {
	r := boot(t, newHost())
	r.task(func() {
		image := r.image("i.img", 128)
		r.ok(r.k.Create(ctx, []Device{{Name: "d", Table: linearTable(image, 128)}}))
		for want, s := range map[syscall.Errno]CloneSpec{
			syscall.EINVAL: {Base: "d", Names: []string{"a"}},
			syscall.EBUSY:  {Base: image, Names: []string{"a"}},
			syscall.ENODEV: {Base: "nbd://nowhere", Names: []string{"a"}},
			syscall.EEXIST: {Base: image, Names: []string{"d"}},
		} {
			s.Lazy = true
			if err := r.m.Clone(ctx, s); dm.ErrnoOf(err) != want {
				t.Errorf("%+v: %v, want %v", s, err, want)
			}
		}
		r.ok(r.m.Remove(ctx, RemoveSpec{Name: "d"}))
		for _, s := range []CloneSpec{{Pool: "p"}, {Store: "/s"}, {Size: 64 << 9}, {Size: 100}} {
			s.Lazy, s.Base, s.Names = true, image, []string{"a"}
			if err := r.m.Clone(ctx, s); dm.ErrnoOf(err) != syscall.EINVAL {
				t.Errorf("%+v: %v", s, err)
			}
		}
		r.ok(r.check())
	})
	r.stop()
}
