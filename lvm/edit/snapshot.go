package edit

import (
	"fmt"

	"udm/lvm"
	"udm/lvm/text"
)

// Snapshot describes a new snapshot with a COW store of its own.
type Snapshot struct {
	Name, Origin string
	Extents      uint64 // of the COW store
	ChunkSectors uint64 // 0: 4 KiB
	ReadOnly     bool
}

// CreateSnapshot creates a snapshot with a COW store.
func (ed *Edit) CreateSnapshot(s Snapshot) error {
	return ed.try(func() error {
		origin, err := ed.origin(s.Origin)
		if err == nil {
			err = ed.mayCreate(s.Name)
		}
		if err != nil {
			return err
		}
		if s.ChunkSectors == 0 {
			s.ChunkSectors = 8
		}
		if n := s.ChunkSectors; n < 8 || n > 1024 || n&(n-1) != 0 {
			return fmt.Errorf("chunks of %d sectors: their size must be a power of two from 4 to 512 KiB", n)
		}
		cow, err := ed.allocated(s.Name, hidden, s.Extents, Layout{})
		if err != nil {
			return err
		}
		if s.ReadOnly {
			cow.Set("status", text.Strings("READ"))
		}
		ed.blank = append(ed.blank, s.Name)
		lvs := ed.section("logical_volumes")
		link := ed.newLV(firstFree("snapshot", "", func(n string) bool { return lvs.Find(n) != nil }), visible, nil)
		appendSegment(link, segment(0, origin.Extents(), "snapshot", value("chunk_size", text.Int(s.ChunkSectors)),
			value("origin", text.String(s.Origin)), value("cow_store", text.String(s.Name))))
		return nil
	})
}

// origin returns a volume that can have snapshots with COW stores.
func (ed *Edit) origin(name string) (*lvm.LV, error) {
	l, err := ed.volume(name)
	if err != nil {
		return nil, err
	}
	if _, ok := l.Segments[0].Kind.(*lvm.Striped); !ok || l.Link() != nil {
		return nil, fmt.Errorf("%s is of type %s; snapshots with a size of their own are possible of linear and striped volumes", name, l.Type())
	}
	for _, s := range l.Snapshots() {
		if s.Link().Segments[0].Kind.(*lvm.Snapshot).Merging {
			return nil, fmt.Errorf("the snapshot %s is being merged into %s", s.Name, name)
		}
	}
	return l, nil
}

func (ed *Edit) removeSnapshot(cow, link *lvm.LV) error {
	k := link.Segments[0].Kind.(*lvm.Snapshot)
	if k.Merging {
		return fmt.Errorf("%s is being merged into %s", cow.Name, k.Origin)
	}
	ed.section("logical_volumes").Delete(link.Name)
	if err := ed.decode(); err != nil {
		return err
	}
	return ed.delete(ed.group.LV(cow.Name))
}
