package edit

import (
	"slices"
	"testing"
	"time"

	"udm/blk"
	"udm/blk/memdev"
	"udm/env"
	"udm/lvm"
)

var author = Author{Host: "host", Time: time.Unix(1700000000, 0), Command: "test"}

const small = 32 << 11 // sectors of a disk

// rig is disks with a volume group named vg.
type rig struct {
	testing.TB
	disks []lvm.Disk
}

func newRig(t testing.TB, n int) *rig {
	r := &rig{TB: t}
	for i := range n {
		r.disks = append(r.disks, lvm.Disk{Name: "/d" + string(rune('0'+i)), Device: memdev.New(small, memdev.Volatile)})
	}
	return r
}

func (r *rig) must(err error) {
	r.Helper()
	if err != nil {
		r.Fatal(err)
	}
}

// with is the same disks with their devices replaced.
func (r *rig) with(f func(blk.Device) blk.Device) *rig {
	c := &rig{TB: r.TB, disks: slices.Clone(r.disks)}
	for i := range c.disks {
		c.disks[i].Device = f(c.disks[i].Device)
	}
	return c
}

// scan finds the only group; nil: there is none.
func (r *rig) scan() *lvm.Assembled {
	r.Helper()
	groups := lvm.Scan(env.Real(), r.disks).Groups
	if len(groups) == 0 {
		return nil
	}
	if len(groups) > 1 {
		r.Fatalf("there are %d groups", len(groups))
	}
	return groups[0]
}

// create starts a group on all disks, with extents of 64 KiB.
func (r *rig) create() *Edit {
	r.Helper()
	ed, err := Create(env.Real(), "vg", 128, author)
	r.must(err)
	r.must(ed.AddDisks(lvm.Scan(env.Real(), r.disks).Disks, false))
	return ed
}

// edit starts a change of the group.
func (r *rig) edit() *Edit {
	r.Helper()
	a := r.scan()
	if a == nil {
		r.Fatal("there is no group")
	}
	ed, err := New(env.Real(), a, author)
	r.must(err)
	return ed
}

// change makes a change and commits it.
func (r *rig) change(f func(*Edit) error) {
	r.Helper()
	ed := r.edit()
	r.must(f(ed))
	r.must(ed.Commit())
	r.sound()
}

// sound fails if anything is wrong with the group.
func (r *rig) sound() *lvm.Assembled {
	r.Helper()
	a := r.scan()
	if a == nil || a.Err != nil || len(a.Problems) > 0 {
		r.Fatalf("%+v", a)
	}
	return a
}
