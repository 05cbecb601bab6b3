package edit

import (
	"fmt"
	"slices"

	"udm/lvm"
	"udm/lvm/text"
)

// references are the fields that have names of volumes, in segments and messages.
var references = []string{"origin", "cow_store", "merging_store", "metadata", "pool", "thin_pool", "external_origin", "merge", "create"}

// Rename renames a volume.
func (ed *Edit) Rename(name, to string) error {
	return ed.try(func() error {
		l, err := ed.volume(name)
		if err != nil {
			return err
		}
		if err := ed.checkNew(to); err != nil {
			return err
		}
		if err := ed.mayRename(l); err != nil {
			return err
		}
		if k, ok := l.Segments[0].Kind.(*lvm.ThinPool); ok {
			for part, suffix := range map[string]string{k.Metadata: "_tmeta", k.Data: "_tdata"} {
				if part == name+suffix && ed.section("logical_volumes").Find(to+suffix) == nil {
					ed.rename(part, to+suffix)
				}
			}
		}
		ed.rename(name, to)
		return nil
	})
}

// mayRename fails for volumes whose parts have names made from theirs, and in groups
// with segments whose fields are unknown.
func (ed *Edit) mayRename(l *lvm.LV) error {
	for _, s := range l.Segments {
		switch s.Kind.(type) {
		case *lvm.Striped, *lvm.Empty, *lvm.Thin, *lvm.ThinPool:
		default:
			return fmt.Errorf("%s is of type %s, which udm does not rename", l.Name, l.Type())
		}
	}
	for _, other := range ed.group.LVs {
		for _, s := range other.Segments {
			if _, unknown := s.Kind.(*lvm.Other); unknown {
				return fmt.Errorf("%s is of type %s, which udm does not know; it may refer to %s", other.Name, s.Type, l.Name)
			}
		}
	}
	for _, u := range ed.group.Users(l) {
		switch u.Segments[0].Kind.(type) {
		case *lvm.Snapshot, *lvm.Striped, *lvm.Thin:
		default:
			return fmt.Errorf("%s is a part of %s", l.Name, u.Name)
		}
	}
	return nil
}

// rename renames a volume and what refers to it.
func (ed *Edit) rename(name, to string) {
	lvs := ed.section("logical_volumes")
	lvs.Find(name).Name = to
	for _, list := range [][]string{ed.blank, ed.tell} {
		if i := slices.Index(list, name); i >= 0 {
			list[i] = to
		}
	}
	for _, lv := range lvs.Entries {
		for _, s := range lv.Section.Entries {
			if s.Section != nil {
				ed.refer(s.Section, text.String(name), text.String(to))
			}
		}
	}
}

// refer changes references in a segment. In stripes a disk comes before a volume of the
// same name.
func (ed *Edit) refer(s *text.Section, from, to text.String) {
	for i := range s.Entries {
		e := &s.Entries[i]
		if e.Section != nil {
			ed.refer(e.Section, from, to)
		}
		if e.Value == from && slices.Contains(references, e.Name) {
			e.Value = to
		}
		if a, ok := e.Value.(text.Array); ok && e.Name == "stripes" && ed.group.PV(string(from)) == nil {
			for j := 0; j < len(a); j += 2 {
				if a[j] == from {
					a[j] = to
				}
			}
		}
	}
}
