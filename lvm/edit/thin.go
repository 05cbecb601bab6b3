package edit

import (
	"errors"
	"fmt"
	"slices"

	"udm/lvm"
	"udm/lvm/text"
	"udm/targets/thin/thinmeta"
)

// Thin describes a new volume of a thin pool.
type Thin struct {
	Name, Pool string
	Extents    uint64
	Tags       []string
	ReadOnly   bool
}

// CreateThin creates an empty thin volume.
func (ed *Edit) CreateThin(v Thin) error {
	return ed.try(func() error {
		pool, _, err := ed.pool(v.Pool)
		if err != nil {
			return err
		}
		if v.Extents == 0 {
			return errors.New("a volume has at least one extent")
		}
		return ed.addThin(v, pool, nil)
	})
}

// CreateThinSnapshot creates a snapshot of a thin volume. As in LVM, it is skipped when
// the group is activated, unless it is asked for.
func (ed *Edit) CreateThinSnapshot(name, origin string, readOnly bool) error {
	return ed.try(func() error {
		l, err := ed.volume(origin)
		if err != nil {
			return err
		}
		k, ok := l.Segments[0].Kind.(*lvm.Thin)
		if !ok || l.Link() != nil {
			return fmt.Errorf("%s is of type %s; a snapshot of it needs a size", origin, l.Type())
		}
		return ed.addThin(Thin{Name: name, Extents: l.Extents(), ReadOnly: readOnly}, ed.group.LV(k.Pool), l)
	})
}

// addThin adds a thin volume, and the message that creates it. origin may be nil.
func (ed *Edit) addThin(v Thin, pool, origin *lvm.LV) error {
	if err := ed.mayCreate(v.Name); err != nil {
		return err
	}
	id, err := ed.freeID(pool)
	if err != nil {
		return err
	}
	transaction := ed.message(pool, value("create", text.String(v.Name)))
	status, flags := visible, []string(nil)
	if v.ReadOnly {
		status = []string{"READ", "VISIBLE"}
	}
	s := segment(0, v.Extents, "thin", value("thin_pool", text.String(pool.Name)), value("transaction_id", text.Int(transaction)), value("device_id", text.Int(id)))
	if origin != nil {
		flags = []string{"ACTIVATION_SKIP"}
		s.Set("origin", text.String(origin.Name))
		if k := origin.Segments[0].Kind.(*lvm.Thin); k.External != "" {
			s.Set("external_origin", text.String(k.External))
		}
	}
	lv := ed.newLV(v.Name, status, flags)
	if len(v.Tags) > 0 {
		lv.Set("tags", text.Strings(v.Tags...))
	}
	appendSegment(lv, s)
	return nil
}

// freeID returns an id that is free in the text and in the pool.
func (ed *Edit) freeID(pool *lvm.LV) (uint32, error) {
	ids, err := ed.settle(pool)
	if err != nil {
		return 0, err
	}
	for _, l := range ed.group.LVs {
		if k, ok := l.Segments[0].Kind.(*lvm.Thin); ok && k.Pool == pool.Name {
			ids = append(ids, k.Device)
		}
	}
	if len(ids) == 0 {
		return 1, nil
	}
	if last := slices.Max(ids); last < thinmeta.MaxID {
		return last + 1, nil
	}
	for id := uint32(1); id <= thinmeta.MaxID; id++ {
		if !slices.Contains(ids, id) {
			return id, nil
		}
	}
	return 0, fmt.Errorf("the pool %s has no free device id", pool.Name)
}

// message adds a message for a pool. It returns the pool's transaction before this
// change.
func (ed *Edit) message(pool *lvm.LV, m text.Entry) uint64 {
	s := pool.Text.Section(segmentName(1))
	if !slices.Contains(ed.tell, pool.Name) {
		ed.tell = append(ed.tell, pool.Name)
		s.Set("transaction_id", text.Int(number(s.Value("transaction_id"))+1))
	}
	name := ""
	for i := 1; name == "" || s.Find(name) != nil; i++ {
		name = fmt.Sprintf("message%d", i)
	}
	s.SetSection(name, section(m))
	return number(s.Value("transaction_id")) - 1
}

// removeThin removes a thin volume, and sends its pool the message to delete it. Other
// volumes forget that they were made of it.
func (ed *Edit) removeThin(l *lvm.LV, k *lvm.Thin) error {
	pool := ed.group.LV(k.Pool)
	if _, err := ed.settle(pool); err != nil {
		return err
	}
	for _, m := range pool.Segments[0].Kind.(*lvm.ThinPool).Messages {
		if m.Create != "" {
			return fmt.Errorf("commit the creation of %s before a volume is removed", m.Create)
		}
	}
	for _, u := range ed.group.LVs {
		s := u.Text.Section(segmentName(1))
		if s.Value("merge") == text.String(l.Name) || k.Merge == u.Name {
			return fmt.Errorf("%s and %s are being merged", l.Name, u.Name)
		}
		if _, thin := u.Segments[0].Kind.(*lvm.Thin); thin && s.Value("origin") == text.String(l.Name) {
			s.Delete("origin")
		}
	}
	if err := ed.delete(l); err != nil {
		return err
	}
	ed.message(pool, value("delete", text.Int(k.Device)))
	return nil
}
