package edit

import (
	"errors"
	"fmt"

	"udm/blk"
	"udm/env"
	"udm/lvm"
	"udm/lvm/text"
)

// DefaultExtent is the size of extents in sectors: 4 MiB.
const DefaultExtent = 8192

// ErrNotBlank is the error for a new disk that may contain something.
var ErrNotBlank = errors.New("the disk is not empty: something is in its first or last MiB")

// Create starts a new group.
func Create(e env.Env, name string, extentSectors uint64, by Author) (*Edit, error) {
	if err := checkName("volume group", name); err != nil {
		return nil, err
	}
	if extentSectors < 2 || extentSectors > 1<<31 || extentSectors&(extentSectors-1) != 0 && extentSectors%256 != 0 {
		return nil, fmt.Errorf("extents of %d sectors: their size must be a power of two from 1 KiB on, or a multiple of 128 KiB", extentSectors)
	}
	vg := section(
		value("id", text.String(lvm.NewUUID(e).String())), value("seqno", text.Int(0)), value("format", text.String("lvm2")),
		value("status", text.Strings("RESIZEABLE", "READ", "WRITE")), value("flags", text.Array{}),
		value("extent_size", text.Int(extentSectors)), value("max_lv", text.Int(0)), value("max_pv", text.Int(0)),
		value("metadata_copies", text.Int(0)), text.Entry{Name: "physical_volumes", Section: &text.Section{}},
	)
	root := section(text.Entry{Name: name, Section: vg}, value("contents", text.String("Text Format Volume Group")), value("version", text.Int(1)))
	ed := &Edit{env: e, by: by, root: root, disks: map[string]*lvm.Found{}}
	return ed, ed.decode()
}

// AddDisks adds disks to the group. A disk must be blank, unless overwrite is set, or a
// physical volume without a group, which is initialised again.
func (ed *Edit) AddDisks(disks []*lvm.Found, overwrite bool) error {
	return ed.try(func() error {
		for _, d := range disks {
			if err := ed.addDisk(d, overwrite); err != nil {
				return fmt.Errorf("%s: %w", d.Name, err)
			}
		}
		return nil
	})
}

func (ed *Edit) addDisk(d *lvm.Found, overwrite bool) error {
	if err := ed.usable(d, overwrite); err != nil {
		return err
	}
	pv, err := d.NewPV(ed.env)
	if err != nil {
		return err
	}
	start := pv.Label.Data[0].Offset / blk.SectorSize
	sectors := pv.Label.Size / blk.SectorSize
	count := (sectors - start) / ed.group.ExtentSize
	if count == 0 {
		return fmt.Errorf("it has no room for an extent of %d sectors", ed.group.ExtentSize)
	}
	pvs := ed.section("physical_volumes")
	name := firstFree("pv", "", func(n string) bool { return pvs.Find(n) != nil })
	pvs.SetSection(name, section(
		value("id", text.String(pv.Label.ID.String())), value("device", text.String(d.Name)),
		value("status", text.Strings("ALLOCATABLE")), value("flags", text.Array{}),
		value("dev_size", text.Int(sectors)), value("pe_start", text.Int(start)), value("pe_count", text.Int(count)),
	))
	ed.fresh = append(ed.fresh, pv)
	ed.disks[name] = pv
	return nil
}

// usable fails if a disk must not be added.
func (ed *Edit) usable(d *lvm.Found, overwrite bool) error {
	switch {
	case d.Group != nil:
		return fmt.Errorf("it belongs to the group %s", d.Group.Name)
	case d.Label != nil && d.Label.Used && !overwrite:
		return errors.New("its label says that it belongs to a group, whose metadata is on other disks")
	case ed.group.MaxPV > 0 && uint64(len(ed.section("physical_volumes").Entries)) >= ed.group.MaxPV:
		return fmt.Errorf("the group may have only %d disks", ed.group.MaxPV)
	case d.Label != nil || overwrite:
		return nil
	}
	blank, err := d.Blank(ed.env)
	if err == nil && !blank {
		err = ErrNotBlank
	}
	return err
}

// RenameGroup renames the group.
func (ed *Edit) RenameGroup(name string) error {
	if err := checkName("volume group", name); err != nil {
		return err
	}
	return ed.try(func() error {
		ed.root.Find(ed.vgName()).Name = name
		for _, l := range ed.group.LVs {
			if err := checkLength(name, l.Name); err != nil {
				return err
			}
		}
		return nil
	})
}

// RemoveGroup removes a group without volumes at once.
func RemoveGroup(e env.Env, a *lvm.Assembled) error {
	if err := errors.Join(changeable(a), complete(a)); err != nil {
		return err
	}
	if len(a.LVs) > 0 {
		return fmt.Errorf("the group %s still has volumes: %s", a.Name, names(a.LVs))
	}
	return a.Erase(e)
}

// firstFree returns the first of prefix0suffix, prefix1suffix, … that is not taken.
func firstFree(prefix, suffix string, taken func(string) bool) string {
	for i := 0; ; i++ {
		if name := fmt.Sprintf("%s%d%s", prefix, i, suffix); !taken(name) {
			return name
		}
	}
}
