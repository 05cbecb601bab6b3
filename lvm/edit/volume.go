package edit

import (
	"errors"
	"fmt"
	"slices"

	"udm/blk"
	"udm/lvm"
	"udm/lvm/text"
)

// The status of volumes that users see, and of parts of volumes.
var (
	visible = []string{"READ", "WRITE", "VISIBLE"}
	hidden  = []string{"READ", "WRITE"}
)

// Volume describes a new linear or striped volume.
type Volume struct {
	Name     string
	Extents  uint64 // rounded up to a multiple of the stripes
	Layout   Layout
	Tags     []string
	ReadOnly bool
	KeepData bool // do not zero the first 4 KiB
}

// CreateVolume creates a linear or striped volume.
func (ed *Edit) CreateVolume(v Volume) error {
	return ed.try(func() error {
		if err := ed.mayCreate(v.Name); err != nil {
			return err
		}
		status := visible
		if v.ReadOnly {
			status = []string{"READ", "VISIBLE"}
		}
		if !v.KeepData && !v.ReadOnly {
			ed.blank = append(ed.blank, v.Name)
		}
		lv, err := ed.allocated(v.Name, status, v.Extents, v.Layout)
		if err == nil && len(v.Tags) > 0 {
			lv.Set("tags", text.Strings(v.Tags...))
		}
		return err
	})
}

// mayCreate fails if there cannot be another volume, or not of that name.
func (ed *Edit) mayCreate(name string) error {
	n := uint64(0)
	for _, l := range ed.group.LVs {
		if l.Visible() {
			n++
		}
	}
	if limit := ed.group.MaxLV; limit > 0 && n >= limit {
		return fmt.Errorf("the group %s may have only %d volumes", ed.group.Name, limit)
	}
	return ed.checkNew(name)
}

// allocated adds a volume of extents, and decodes the text.
func (ed *Edit) allocated(name string, status []string, extents uint64, o Layout) (*text.Section, error) {
	if extents == 0 {
		return nil, errors.New("a volume has at least one extent")
	}
	lv := ed.newLV(name, status, nil)
	n := max(o.Stripes, 1)
	if err := ed.extend(lv, (extents+n-1)/n*n, o); err != nil {
		return nil, err
	}
	return lv, ed.decode()
}

// zero zeroes the start of a volume that is not in the committed text yet.
func (ed *Edit) zero(name string) error {
	d, err := ed.after().Open(ed.env, name, true)
	if err != nil {
		return err
	}
	f := blk.NewFile(ed.env, d)
	_, err = f.WriteAt(make([]byte, 4096), 0)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, d.Close())
}

// Remove removes a volume.
func (ed *Edit) Remove(name string) error {
	return ed.try(func() error {
		l, err := ed.volume(name)
		if err != nil {
			return err
		}
		if ed.inUse(l) {
			return fmt.Errorf("%s is active; deactivate it first: udm lvm deactivate %s/%s", name, ed.group.Name, name)
		}
		if link := l.Link(); link != nil {
			return ed.removeSnapshot(l, link)
		}
		switch k := l.Segments[0].Kind.(type) {
		case *lvm.Thin:
			return ed.removeThin(l, k)
		case *lvm.ThinPool:
			return ed.removePool(l, k)
		case *lvm.Striped, *lvm.Empty:
			return ed.delete(l)
		}
		return fmt.Errorf("%s is of type %s, which udm does not remove", name, l.Type())
	})
}

// delete deletes volumes from the text, of which the first is not used by others.
func (ed *Edit) delete(l *lvm.LV, parts ...string) error {
	if users := ed.group.Users(l); len(users) > 0 {
		return fmt.Errorf("%s is needed by %s", l.Name, names(shown(users)))
	}
	lvs := ed.section("logical_volumes")
	for _, name := range append(parts, l.Name) {
		lvs.Delete(name)
	}
	ed.blank = slices.DeleteFunc(ed.blank, func(name string) bool { return lvs.Find(name) == nil })
	if len(lvs.Entries) == 0 {
		ed.vg().Delete("logical_volumes")
	}
	return nil
}

// shown returns the volumes that users know: a COW store in place of its link.
func shown(ls []*lvm.LV) (list []*lvm.LV) {
	for _, l := range ls {
		if _, link := l.Segments[0].Kind.(*lvm.Snapshot); !link {
			list = append(list, l)
		}
	}
	return list
}

// Resize changes the length of a volume in extents. The end of a volume that becomes
// shorter is lost.
func (ed *Edit) Resize(name string, extents uint64) error {
	return ed.try(func() error {
		l, err := ed.volume(name)
		switch {
		case err != nil:
			return err
		case extents == 0:
			return errors.New("a volume has at least one extent")
		case len(l.Snapshots()) > 0:
			return fmt.Errorf("%s has snapshots, which would not fit any more; only volumes without snapshots can be resized", name)
		case len(ed.clones(l)) > 0:
			return fmt.Errorf("%s is the external origin of %s", name, names(ed.clones(l)))
		}
		switch k := l.Segments[0].Kind.(type) {
		case *lvm.Thin:
			l.Text.Section(segmentName(1)).Set("extent_count", text.Int(extents))
			return nil
		case *lvm.ThinPool:
			return ed.growPool(l, k, extents)
		case *lvm.Striped:
			return ed.resize(l, extents, l.Link() != nil)
		}
		return fmt.Errorf("%s is of type %s, which udm does not resize", name, l.Type())
	})
}

// resize resizes a volume made of linear and striped segments.
func (ed *Edit) resize(l *lvm.LV, extents uint64, growOnly bool) error {
	if slices.ContainsFunc(l.Segments, func(s *lvm.Segment) bool { _, ok := s.Kind.(*lvm.Striped); return !ok }) {
		return fmt.Errorf("%s has segments of several types, which udm does not resize", l.Name)
	}
	switch now := l.Extents(); {
	case extents < now && growOnly:
		return fmt.Errorf("%s can only grow; it has %d extents", l.Name, now)
	case extents < now:
		cut(l.Text, extents)
		return nil
	case extents == now:
		return nil
	}
	o := layoutOf(l)
	o.Contiguous = l.Text.Value("allocation_policy") == text.String("contiguous")
	n := (extents - l.Extents() + o.Stripes - 1) / o.Stripes * o.Stripes
	return ed.extend(l.Text, n, o)
}

// layoutOf is the layout of a volume's last segment.
func layoutOf(l *lvm.LV) Layout {
	k := l.Segments[len(l.Segments)-1].Kind.(*lvm.Striped)
	return Layout{Stripes: uint64(len(k.Stripes)), StripeSectors: k.StripeSize}
}

// clones returns the thin volumes of which a volume is the external origin.
func (ed *Edit) clones(l *lvm.LV) (list []*lvm.LV) {
	for _, u := range ed.group.LVs {
		if k, ok := u.Segments[0].Kind.(*lvm.Thin); ok && k.External == l.Name {
			list = append(list, u)
		}
	}
	return list
}
