package edit

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"udm/blk"
	"udm/blk/memdev"
	"udm/env"
	"udm/lvm"
)

// contents reads all volumes that have extents.
func (r *rig) contents() map[string][]byte {
	r.Helper()
	return r.contentsOf(r.sound())
}

func (r *rig) contentsOf(a *lvm.Assembled) map[string][]byte {
	r.Helper()
	all := map[string][]byte{}
	for _, l := range a.LVs {
		if _, ok := l.Segments[0].Kind.(*lvm.Striped); !ok {
			continue
		}
		d, err := a.Open(env.Real(), l.Name, false)
		r.must(err)
		all[l.Name] = make([]byte, a.ExtentSize*l.Extents()*blk.SectorSize)
		r.must(blk.ReadSectors(env.Real(), d, all[l.Name], 0))
		r.must(d.Close())
	}
	return all
}

// pattern fills the disks behind their areas: each sector is another one.
func (r *rig) pattern() {
	r.Helper()
	for n, d := range r.disks {
		p := make([]byte, (small-2048)*blk.SectorSize)
		for i := range p {
			p[i] = byte(i>>9) ^ byte(i>>17)*byte(n+3)
		}
		r.must(blk.WriteSectors(env.Real(), d.Device, p, 2048, 0))
	}
}

// Volumes keep their content when they are moved, also where they are moved in pieces.
func TestEvacuate(t *testing.T) {
	r := newRig(t, 3)
	base(r)
	r.change(func(ed *Edit) error { return ed.CreateVolume(Volume{Name: "long", Extents: 500}) })
	r.change(func(ed *Edit) error { return ed.Remove("c") }) // a hole
	r.must(r.withThird())
	meta := r.contents()["p_tmeta"]
	r.pattern()
	r.writeMeta(meta)
	before := r.contents()
	r.change(func(ed *Edit) error { return ed.Evacuate("/d0", "a", []string{"/d2"}) })
	if g := r.sound().Group; liesOn(g.LV("a"), "pv0") || !liesOn(g.LV("p_tdata"), "pv0") {
		t.Errorf("%s", layout(g))
	}
	var done, total uint64
	r.change(func(ed *Edit) error {
		ed.Progress = func(d, t uint64) { done, total = d, t }
		return ed.Evacuate("/d0", "", nil)
	})
	if done == 0 || done != total {
		t.Errorf("told of %d of %d bytes at the end", done, total)
	}
	for name, want := range r.contents() {
		if !bytes.Equal(before[name], want) {
			t.Errorf("%s has changed", name)
		}
	}
	if by := users(r.sound().Group, r.sound().PV("pv0")); len(by) > 0 {
		t.Errorf("%v are still there", by)
	}
	r.change(func(ed *Edit) error { return ed.RemoveDisk("/d0") })
	if a := r.sound(); len(a.PVs) != 2 || lvm.Scan(env.Real(), r.disks).Disks[0].Group != nil {
		t.Errorf("%+v", a.PVs)
	}
	r.goesOn()
}

// A power cut while volumes move leaves their content, also where they move to a disk
// that has no metadata area, which nothing else flushes.
func TestEvacuateCut(t *testing.T) {
	for _, areas := range []bool{true, false} {
		t.Run(fmt.Sprint("areas=", areas), func(t *testing.T) {
			r := newRig(t, 3)
			base(r)
			meta := r.contents()["p_tmeta"]
			r.pattern()
			r.writeMeta(meta)
			before := r.contents()
			r = r.copied() // all of that is durable
			r.cuts(t, func(r *rig) error { return r.replaceSecond(areas) }, func(cut *rig) {
				for name, got := range cut.contentsOf(cut.scan()) {
					if !bytes.Equal(before[name], got) {
						t.Errorf("%s has changed", name)
					}
				}
			})
		})
	}
}

// replaceSecond puts the third disk, with or without metadata areas, in the second one's place.
func (r *rig) replaceSecond(areas bool) error {
	result := lvm.Scan(env.Real(), r.disks)
	ed, err := New(env.Real(), result.Groups[0], author)
	if err == nil {
		err = ed.AddDisks(result.Disks[2:], true)
	}
	if err == nil && !areas {
		ed.fresh[0].Areas = nil
	}
	if err == nil {
		err = ed.Evacuate("/d1", "", []string{"/d2"})
	}
	if err == nil {
		err = ed.Commit()
	}
	return err
}

// withThird adds the third disk.
func (r *rig) withThird() error {
	return more("", func(*Edit) error { return nil }).change(r)
}

// writeMeta writes the metadata of the pool.
func (r *rig) writeMeta(meta []byte) {
	r.Helper()
	d, err := r.sound().Open(env.Real(), "p_tmeta", true)
	r.must(err)
	r.must(blk.WriteSectors(env.Real(), d, meta, 0, 0))
	r.must(d.Close())
}

// What cannot be moved or taken out, and why.
func TestStays(t *testing.T) {
	r := newRig(t, 2)
	base(r)
	for want, change := range map[string]func(*Edit) error{
		"/d0 is used by a, b, ":            func(ed *Edit) error { return ed.RemoveDisk("/d0") },
		"/d7 is not a disk of the group":   func(ed *Edit) error { return ed.RemoveDisk("/d7") },
		"have no room on the other disks":  func(ed *Edit) error { return ed.Evacuate("/d0", "b", nil) },
		"there is nothing to move on /d1":  func(ed *Edit) error { return ed.Evacuate("/d1", "a", nil) },
		"/d9 is not a disk of the group":   func(ed *Edit) error { return ed.Evacuate("/d1", "", []string{"/d9"}) },
		"there is nothing to move on /d1.": func(ed *Edit) error { return ed.Evacuate("/d1", "nosuch", nil) },
	} {
		if err := change(r.edit()); err == nil || !strings.Contains(err.Error()+".", want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

// A missing disk is taken out if nothing is on it.
func TestRemoveMissing(t *testing.T) {
	r := newRig(t, 3)
	base(r)
	r.must(r.withThird())
	less := &rig{TB: t, disks: r.disks[:2]}
	if _, err := New(env.Real(), less.scan(), author); err == nil {
		t.Error("a group without a disk can be changed")
	}
	ed, err := NewWithout(env.Real(), less.scan(), author)
	r.must(err)
	r.must(ed.RemoveMissing())
	r.must(ed.Commit())
	less.sound()
	one := &rig{TB: t, disks: []lvm.Disk{{Name: "/d0", Device: r.disks[0].Device.(*memdev.Device).Clone()}}}
	ed, err = NewWithout(env.Real(), one.scan(), author)
	r.must(err)
	if err := ed.RemoveMissing(); err == nil || !strings.Contains(err.Error(), "parts of b are on the missing disk pv1") {
		t.Error(err)
	}
}
