package thinmeta

import (
	"sync/atomic"
	"syscall"

	"udm/pdata"
)

// Thin is a thin device (struct dm_thin_device).
type Thin struct {
	m         *Metadata
	id        uint32
	d         Details
	shownSnap atomic.Uint32 // d.Snapshotted as readers see it
	opens     int
	changed   bool // in this transaction
	sealed    bool // in the one that is being written
	aborted   bool // changes were lost by an Abort
}

// get returns the Thin of an id, reading its details from the tree unless they are
// cached. ENODATA if there is no such device.
func (m *Metadata) get(id uint32) (*Thin, error) {
	if t := m.thins[id]; t != nil {
		return t, nil
	}
	d, err := m.details.Lookup(m.super.DetailsRoot, uint64(id))
	if err != nil {
		return nil, pdata.In("device details", err)
	}
	return m.keep(id, d), nil
}

func (m *Metadata) keep(id uint32, d Details) *Thin {
	t := &Thin{m: m, id: id, d: d}
	t.shownSnap.Store(d.Snapshotted)
	m.thins[id] = t
	return t
}

// put forgets a Thin that is not in use.
func (m *Metadata) put(t *Thin) {
	if t.opens == 0 && !t.changed && !t.sealed && m.thins[t.id] == t {
		delete(m.thins, t.id)
	}
}

// OpenThin opens a device. The caller must Close it. ENODATA if there is no such
// device.
func (m *Metadata) OpenThin(id uint32) (*Thin, error) {
	if err := m.sb.Usable(); err != nil {
		return nil, err
	}
	t, err := m.get(id)
	if err != nil {
		return nil, err
	}
	t.opens++
	return t, nil
}

// Close undoes one OpenThin.
func (t *Thin) Close() {
	t.opens--
	t.m.put(t)
}

// ID returns the device's id.
func (t *Thin) ID() uint32 { return t.id }

// Changed reports whether the device was changed in this transaction, or lost changes
// by Abort.
func (t *Thin) Changed() bool { return t.changed || t.sealed || t.aborted }

// AbortedChanges reports whether Abort discarded changes of this device.
func (t *Thin) AbortedChanges() bool { return t.aborted }

// Mapped returns the number of mapped blocks.
func (t *Thin) Mapped() uint64 { return t.d.Mapped }

// absent returns EEXIST if there is a device with the id.
func (m *Metadata) absent(id uint32) error {
	if id > MaxID {
		return syscall.EINVAL
	}
	t, err := m.get(id)
	switch {
	case err == syscall.ENODATA:
		return nil
	case err == nil:
		m.put(t)
		return syscall.EEXIST
	}
	return err
}

// CreateThin creates an empty device. EEXIST if the id is in use.
func (m *Metadata) CreateThin(id uint32) error {
	if err := m.sb.Changeable(); err != nil {
		return err
	}
	if err := m.absent(id); err != nil {
		return err
	}
	return m.change(func() error {
		root, err := m.bottoms.Empty()
		if err != nil {
			return err
		}
		return m.newDevice(id, root, Details{Snapshotted: m.super.Time})
	})
}

// newDevice adds a device to the top tree; the next commit writes its details.
func (m *Metadata) newDevice(id uint32, root uint64, d Details) (err error) {
	if m.super.MappingRoot, err = m.tops.Insert(m.super.MappingRoot, root, uint64(id)); err != nil {
		return pdata.In("device tree", err)
	}
	d.TransactionID, d.Created = m.super.TransactionID, m.super.Time
	m.keep(id, d).changed = true
	return nil
}

// CreateSnap creates a snapshot of another device in constant time. From then on they
// share all their blocks. Devices that use the origin should be suspended. EEXIST if
// the id is in use, ENODATA if there is no origin.
func (m *Metadata) CreateSnap(id, origin uint32) error {
	if err := m.sb.Changeable(); err != nil {
		return err
	}
	if err := m.absent(id); err != nil {
		return err
	}
	root, err := m.bottomRoot(origin)
	if err != nil {
		return err
	}
	o, err := m.get(origin)
	if err != nil {
		return err
	}
	return m.change(func() error {
		if err := m.tm.Inc(root); err != nil {
			return err
		}
		m.super.Time++
		o.d.Snapshotted = m.super.Time
		o.changed = true
		m.readers.renew = append(m.readers.renew, o)
		return m.newDevice(id, root, Details{Mapped: o.d.Mapped, Snapshotted: m.super.Time})
	})
}

func (m *Metadata) bottomRoot(id uint32) (uint64, error) {
	root, err := m.tops.Lookup(m.super.MappingRoot, uint64(id))
	return root, pdata.In("device tree", err)
}

// DeleteThin removes a device and frees the blocks that only it used. ENODATA if
// there is no such device, EBUSY while it is open.
func (m *Metadata) DeleteThin(id uint32) error {
	if _, _, err := m.deletable(id); err != nil {
		return err
	}
	return m.change(func() error { return m.remove(id) })
}

// remove removes a device from both trees.
func (m *Metadata) remove(id uint32) (err error) {
	delete(m.thins, id)
	if err := m.dropDetails(id); err != nil {
		return pdata.In("device details", err)
	}
	m.super.MappingRoot, err = m.tops.Remove(m.super.MappingRoot, uint64(id))
	return pdata.In("device tree", err)
}

// dropDetails removes a device's details, which are not in the tree yet if the device
// is new.
func (m *Metadata) dropDetails(id uint32) error {
	_, err := m.details.Lookup(m.super.DetailsRoot, uint64(id))
	if err == nil {
		m.super.DetailsRoot, err = m.details.Remove(m.super.DetailsRoot, uint64(id))
	} else if err == syscall.ENODATA {
		err = nil
	}
	return err
}

// TransactionID is a number for the users of the pool.
func (m *Metadata) TransactionID() uint64 { return m.super.TransactionID }

// SetTransactionID changes the number. EINVAL if it is not current.
func (m *Metadata) SetTransactionID(current, next uint64) error {
	if err := m.sb.Changeable(); err != nil {
		return err
	}
	if m.super.TransactionID != current {
		return syscall.EINVAL
	}
	return m.change(func() error {
		m.super.TransactionID = next
		return nil
	})
}
