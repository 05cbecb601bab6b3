package edit

import (
	"errors"
	"fmt"
	"strings"

	"udm/lvm"
)

// RemoveDisk takes a disk that no volume uses out of the group, and leaves it a physical
// volume of no group. name is that of the disk, or its UUID. If that was interrupted
// before, it is completed.
func (ed *Edit) RemoveDisk(name string) error {
	return ed.try(func() error {
		for _, d := range ed.strangers {
			if d.Name == name || d.Label.ID.String() == name {
				ed.dropped = append(ed.dropped, d)
				return nil
			}
		}
		p, err := ed.disk(name)
		if err != nil {
			return err
		}
		if by := users(ed.group, p); len(by) > 0 {
			return fmt.Errorf("%s is used by %s; move that away first: udm lvm pvmove", name, strings.Join(by, ", "))
		}
		return ed.drop(p)
	})
}

// RemoveMissing takes the missing disks that no volume uses out of the group. It fails
// if volumes use others.
func (ed *Edit) RemoveMissing() error {
	return ed.try(func() error {
		for _, p := range ed.group.PVs {
			if ed.disks[p.Name] != nil {
				continue
			}
			if by := users(ed.group, p); len(by) > 0 {
				return fmt.Errorf("parts of %s are on the missing disk %s (%v); find the disk, or remove these volumes first", strings.Join(by, ", "), p.Name, p.ID)
			}
			if err := ed.drop(p); err != nil {
				return err
			}
		}
		return nil
	})
}

// drop takes a physical volume out of the text.
func (ed *Edit) drop(p *lvm.PV) error {
	if len(ed.section("physical_volumes").Entries) == 1 {
		return errors.New("it is the last disk of the group; remove the group instead: udm lvm vgremove")
	}
	ed.section("physical_volumes").Delete(p.Name)
	if d := ed.disks[p.Name]; d != nil {
		ed.dropped = append(ed.dropped, d)
	}
	delete(ed.disks, p.Name)
	return nil
}

// disk returns the physical volume on a disk.
func (ed *Edit) disk(name string) (*lvm.PV, error) {
	for _, p := range ed.group.PVs {
		if d := ed.disks[p.Name]; d != nil && d.Name == name || p.ID.String() == name {
			return p, nil
		}
	}
	return nil, fmt.Errorf("%s is not a disk of the group %s", name, ed.group.Name)
}

// users returns the names of the volumes that have extents on a physical volume.
func users(g *lvm.Group, p *lvm.PV) (names []string) {
	for _, l := range g.LVs {
		if liesOn(l, p.Name) {
			names = append(names, l.Name)
		}
	}
	return names
}

// liesOn reports whether a volume has extents on a physical volume.
func liesOn(l *lvm.LV, pv string) bool {
	for _, s := range l.Segments {
		for _, p := range s.Places() {
			if p.Name == pv {
				return true
			}
		}
	}
	return false
}

// release makes the disks that were dropped physical volumes of no group.
func (ed *Edit) release() error {
	if len(ed.dropped) == 0 {
		return nil
	}
	alone := lvm.Assembled{Disks: map[string]*lvm.Found{}}
	for i, d := range ed.dropped {
		alone.Disks[fmt.Sprint(i)] = d
	}
	return alone.Erase(ed.env)
}
