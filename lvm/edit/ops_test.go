package edit

import (
	"udm/env"
	"udm/lvm"
)

// operation is a change of the group that base makes.
type operation struct {
	name   string
	change func(r *rig) error // scans, changes and commits
}

func on(name string, change func(*Edit) error) operation {
	return operation{name, func(r *rig) error {
		a := r.scan()
		if a == nil {
			return errGone
		}
		ed, err := New(env.Real(), a, author)
		if err == nil {
			err = change(ed)
		}
		if err == nil {
			err = ed.Commit()
		}
		return err
	}}
}

// base makes a group with volumes of all kinds on the first two of three disks.
func base(r *rig) {
	r.Helper()
	ed, err := Create(env.Real(), "vg", 128, author)
	r.must(err)
	r.must(ed.AddDisks(lvm.Scan(env.Real(), r.disks[:2]).Disks, false))
	r.must(ed.Commit())
	r.change(func(ed *Edit) error {
		r.must(ed.CreateVolume(Volume{Name: "a", Extents: 10}))
		r.must(ed.CreateVolume(Volume{Name: "b", Extents: 8, Layout: Layout{Stripes: 2}}))
		return ed.CreatePool(Pool{Name: "p", Extents: 40})
	})
	r.change(func(ed *Edit) error { return ed.CreateThin(Thin{Name: "t", Pool: "p", Extents: 100}) })
	r.change(func(ed *Edit) error { return ed.CreateThinSnapshot("ts", "t", false) })
	r.change(func(ed *Edit) error { return ed.CreateSnapshot(Snapshot{Name: "s", Origin: "a", Extents: 3}) })
	r.change(func(ed *Edit) error { return ed.CreateVolume(Volume{Name: "c", Extents: 10}) })
}

// createGroup makes a group of all disks.
func createGroup(r *rig) error {
	ed, err := Create(env.Real(), "vg", 128, author)
	if err == nil {
		err = ed.AddDisks(lvm.Scan(env.Real(), r.disks).Disks, false)
	}
	if err == nil {
		err = ed.Commit()
	}
	return err
}

var operations = []operation{
	on("create a volume", func(ed *Edit) error { return ed.CreateVolume(Volume{Name: "new", Extents: 700}) }),
	on("create a striped volume", func(ed *Edit) error {
		return ed.CreateVolume(Volume{Name: "new", Extents: 20, Layout: Layout{Stripes: 2, StripeSectors: 16}})
	}),
	on("create a pool", func(ed *Edit) error {
		return ed.CreatePool(Pool{Name: "new", Extents: 30, MetadataExtents: 50, ChunkSectors: 256})
	}),
	on("create a thin volume", func(ed *Edit) error { return ed.CreateThin(Thin{Name: "new", Pool: "p", Extents: 1000}) }),
	on("create a thin snapshot", func(ed *Edit) error { return ed.CreateThinSnapshot("new", "ts", true) }),
	on("create two thin volumes", func(ed *Edit) error {
		if err := ed.CreateThin(Thin{Name: "new", Pool: "p", Extents: 1000}); err != nil {
			return err
		}
		return ed.CreateThinSnapshot("of-new", "new", false)
	}),
	on("create a snapshot", func(ed *Edit) error {
		return ed.CreateSnapshot(Snapshot{Name: "new", Origin: "b", Extents: 4, ChunkSectors: 16})
	}),
	on("extend a volume", func(ed *Edit) error { return ed.Resize("c", 30) }),
	on("reduce a volume", func(ed *Edit) error { return ed.Resize("b", 3) }),
	on("extend a thin volume", func(ed *Edit) error { return ed.Resize("t", 200) }),
	on("extend a snapshot", func(ed *Edit) error { return ed.Resize("s", 5) }),
	on("extend a pool", func(ed *Edit) error { return ed.Resize("p", 80) }),
	on("extend a pool's metadata", func(ed *Edit) error { return ed.ResizeMetadata("p", 60) }),
	on("remove a volume", func(ed *Edit) error { return ed.Remove("c") }),
	on("remove a snapshot", func(ed *Edit) error { return ed.Remove("s") }),
	on("remove a thin volume", func(ed *Edit) error { return ed.Remove("t") }),
	on("remove a pool", func(ed *Edit) error {
		for _, name := range []string{"t", "ts", "p"} {
			if err := ed.Remove(name); err != nil {
				return err
			}
		}
		return nil
	}),
	on("rename a volume", func(ed *Edit) error { return ed.Rename("a", "new") }),
	on("rename a thin volume", func(ed *Edit) error { return ed.Rename("t", "new") }),
	on("rename a pool", func(ed *Edit) error { return ed.Rename("p", "new") }),
	on("rename the group", func(ed *Edit) error { return ed.RenameGroup("new") }),
	more("add a disk", func(*Edit) error { return nil }),
	more("replace a disk", func(ed *Edit) error {
		if err := ed.Evacuate("/d1", "", nil); err != nil {
			return err
		}
		return ed.RemoveDisk("/d1")
	}),
}

// more is an operation on the group with the third disk.
func more(name string, change func(*Edit) error) operation {
	return operation{name, func(r *rig) error {
		result := lvm.Scan(env.Real(), r.disks)
		if len(result.Groups) == 0 {
			return errGone
		}
		ed, err := New(env.Real(), result.Groups[0], author)
		if err == nil {
			err = ed.AddDisks(result.Disks[2:], false)
		}
		if err == nil {
			err = change(ed)
		}
		if err == nil {
			err = ed.Commit()
		}
		return err
	}}
}
