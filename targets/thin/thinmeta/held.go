package thinmeta

import (
	"syscall"

	"udm/pdata"
)

// HeldRoot is the block of the metadata snapshot, or 0 if there is none.
func (m *Metadata) HeldRoot() uint64 { return m.sb.Held() }

// ReserveSnap commits and makes a metadata snapshot: a copy of the superblock,
// without space maps, whose trees are kept for other programs to read. EBUSY if there
// is one already.
func (m *Metadata) ReserveSnap() error {
	if err := m.Commit(); err != nil {
		return err
	}
	if m.HeldRoot() != 0 {
		return syscall.EBUSY
	}
	return m.change(func() error { return m.sb.Hold(m.super.MappingRoot, m.super.DetailsRoot) })
}

// ReleaseSnap releases the metadata snapshot. EINVAL if there is none.
func (m *Metadata) ReleaseSnap() error {
	if err := m.sb.Changeable(); err != nil {
		return err
	}
	if m.HeldRoot() == 0 {
		return syscall.EINVAL
	}
	return m.change(func() error { return pdata.In("metadata snapshot", m.sb.Release(m.delHeld)) })
}

func (m *Metadata) delHeld(p []byte) error {
	var s Super
	s.Decode(p)
	if err := m.maps.Del(s.MappingRoot); err != nil {
		return err
	}
	return m.details.Del(s.DetailsRoot)
}
