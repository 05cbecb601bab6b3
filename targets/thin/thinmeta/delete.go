package thinmeta

import (
	"math"
	"syscall"

	"udm/pdata"
)

// A device with many mappings is deleted in portions, so that the owner can do other
// work in between. DetachThin moves the device to an id above MaxID, which users
// cannot name; DeleteSome removes its mappings step by step. At every commit these
// are complete devices, whose details state the number of mappings, so other programs
// that use the metadata need not know about them.

// deletion is the progress of a device's deletion.
type deletion struct {
	id   uint32
	from uint64 // where to look for unshared leaves
}

// DetachThin deletes a device. If it may have more than atOnce mappings that it does
// not share, they are left to DeleteSome. ENODATA if there is no such device, EBUSY
// while it is open.
func (m *Metadata) DetachThin(id uint32, atOnce uint64) error {
	t, root, err := m.deletable(id)
	if err != nil {
		return err
	}
	refs, err := m.tm.Ref(root)
	if err != nil {
		return pdata.In("device tree", err)
	}
	if t.d.Mapped <= atOnce || refs > 1 {
		return m.DeleteThin(id)
	}
	return m.change(func() error { return m.detach(t, root) })
}

// deletable returns a device that can be deleted and the root of its mappings.
func (m *Metadata) deletable(id uint32) (*Thin, uint64, error) {
	if err := m.sb.Changeable(); err != nil {
		return nil, 0, err
	}
	t, err := m.get(id)
	if err != nil {
		return nil, 0, err
	}
	if t.opens > 0 {
		return nil, 0, syscall.EBUSY
	}
	root, err := m.bottomRoot(id)
	return t, root, err
}

func (m *Metadata) detach(t *Thin, root uint64) error {
	id, err := m.freeDeletedID()
	if err != nil {
		return err
	}
	if err := m.tm.Inc(root); err != nil {
		return err
	}
	if m.super.MappingRoot, err = m.tops.Insert(m.super.MappingRoot, root, uint64(id)); err != nil {
		return pdata.In("device tree", err)
	}
	m.keep(id, t.d).changed = true
	return m.remove(t.id)
}

// freeDeletedID returns an unused id above MaxID.
func (m *Metadata) freeDeletedID() (uint32, error) {
	highest, ok, err := m.tops.Highest(m.super.MappingRoot)
	if err != nil || !ok {
		return 0, pdata.In("device tree", err)
	}
	if highest == math.MaxUint32 {
		return 0, syscall.ENOSPC
	}
	return uint32(max(highest, MaxID)) + 1, nil
}

// Detached reports whether DeleteSome has anything to do.
func (m *Metadata) Detached() (bool, error) {
	if err := m.sb.Usable(); err != nil {
		return false, err
	}
	_, err := m.firstDetached()
	if err == syscall.ENODATA {
		return false, nil
	}
	return err == nil, err
}

func (m *Metadata) firstDetached() (uint32, error) {
	id, _, err := m.tops.LookupNext(m.super.MappingRoot, MaxID+1)
	return uint32(id), pdata.In("device tree", err)
}

// DeleteSome removes about most mappings of one detached device, or all it has left.
// ENODATA if there is no detached device.
func (m *Metadata) DeleteSome(most int) error {
	if err := m.sb.Changeable(); err != nil {
		return err
	}
	id, err := m.firstDetached()
	if err != nil {
		return err
	}
	t, err := m.get(id)
	if err != nil {
		return err
	}
	return m.add(func() error { return t.in(t.prune(most)) })
}

func (t *Thin) prune(most int) error {
	m := t.m
	if m.deletion.id != t.id {
		m.deletion = deletion{id: t.id}
	}
	root, err := t.ownRoot()
	if err != nil {
		return err
	}
	p, err := m.bottoms.Prune(root, m.deletion.from, most)
	if err != nil {
		return err
	}
	m.deletion.from = p.Next
	t.d.Mapped -= p.Removed
	t.changed = true
	if err := t.setRoot(p.Root); err != nil || !p.Done {
		return err
	}
	return m.remove(t.id)
}

// DeleteCost is an upper bound of the metadata blocks that DeleteSome allocates.
func (m *Metadata) DeleteCost(most int) uint64 {
	// The paths in both trees, and in the lower one two neighbours at each height.
	// Shared neighbours are copied, and so is the root of the upper tree.
	return m.cost(32, uint64(most)+perNode, 4*perNode)
}
