package thinmeta

import (
	"syscall"

	"udm/pdata"
)

// HeldRoot is the block of the metadata snapshot, 0 if there is none.
func (m *Metadata) HeldRoot() uint64 { return m.super.HeldRoot }

// ReserveSnap makes a metadata snapshot: a copy of the superblock, without space
// maps, whose trees are kept for reading by others. It commits first. EBUSY if
// there is one.
func (m *Metadata) ReserveSnap() error {
	if err := m.changeable(); err != nil {
		return err
	}
	m.inService = true
	if err := m.Commit(); err != nil {
		return err
	}
	if m.super.HeldRoot != 0 {
		return syscall.EBUSY
	}
	return m.change(m.reserveSnap)
}

// reserveSnap takes a reference to the superblock and shadows it, as the kernel
// does: the reference is given up again, but it decides which block is next.
func (m *Metadata) reserveSnap() error {
	if err := m.tm.Inc(superBlock); err != nil {
		return err
	}
	s, err := m.tm.New(KindSuper)
	if err != nil {
		return err
	}
	if err := m.tm.Dec(superBlock); err != nil {
		return err
	}
	copy(s.Data(), m.raw[:])
	clear(s.Data()[64:320])
	if err := m.tm.Inc(m.super.MappingRoot); err != nil {
		return err
	}
	if err := m.tm.Inc(m.super.DetailsRoot); err != nil {
		return err
	}
	m.super.HeldRoot = s.Nr()
	return nil
}

// ReleaseSnap gives the metadata snapshot up. EINVAL if there is none.
func (m *Metadata) ReleaseSnap() error {
	if err := m.changeable(); err != nil {
		return err
	}
	if m.super.HeldRoot == 0 {
		return syscall.EINVAL
	}
	return m.change(func() error { return pdata.In("metadata snapshot", m.releaseSnap()) })
}

func (m *Metadata) releaseSnap() error {
	held := m.super.HeldRoot
	b, err := m.bm.Read(held, KindSuper)
	if err != nil {
		return err
	}
	var s Super
	s.Decode(b.Bytes())
	m.super.HeldRoot = 0
	if err := m.maps.Del(s.MappingRoot); err != nil {
		return err
	}
	if err := m.details.Del(s.DetailsRoot); err != nil {
		return err
	}
	return m.tm.Dec(held)
}
