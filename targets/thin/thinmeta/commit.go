package thinmeta

import (
	"maps"
	"slices"
	"syscall"

	"udm/pdata"
)

// A commit has these steps. A crash during one leaves what the right column says.
//
//	1 the pre-commit callback flushes the data device      the old transaction
//	2 details, data map, metadata map come to rest:        the old transaction
//	  from now on only blocks are written that were free
//	  in the old transaction
//	3 changed blocks are written, then flushed             the old transaction
//	4 the superblock is written: its first sector holds    the old or the new one
//	  all that differs
//	5 the superblock is flushed                            the old or the new one
//	6 blocks freed meanwhile may be used again             the new transaction
//
// TestDataBeforeMetadata holds step 1, TestCrash and TestCrashInFormat cut the
// power before each write and flush of steps 3 to 5, TestOutOfData holds step 6,
// TestFailEach lets each I/O fail.
//
// Step 1 comes first so that no mapping is durable before its data. An error in
// any step breaks the transaction: the superblock may or may not have been
// written then, which Abort finds out by reading it.

// SetPreCommit makes every Commit call fn first; an error of fn stops it. The
// pool flushes its data device there.
func (m *Metadata) SetPreCommit(fn func() error) { m.preCommit = fn }

// Commit makes all changes durable. It does nothing before the metadata is in
// service, that is before the first change since Open; after that it always
// calls the pre-commit callback, but writes only when something was changed.
func (m *Metadata) Commit() error {
	if err := m.usable(); err != nil || !m.inService {
		return err
	}
	if err := m.changeable(); err != nil {
		return err
	}
	if m.preCommit != nil {
		if err := m.preCommit(); err != nil {
			m.broken = err
			return err
		}
	}
	if !m.touched {
		return nil
	}
	m.broken = noSpace(m.commit())
	return m.broken
}

func (m *Metadata) commit() error {
	if err := m.writeDetails(); err != nil {
		return err
	}
	if err := m.write(); err != nil {
		return err
	}
	for _, t := range m.thins {
		t.changed = false
	}
	m.touched = false
	m.publish()
	return m.bm.Settle()
}

// writeDetails brings the details tree up to date and drops what was kept for it.
// Thins count as changed until the commit has succeeded, so that an Abort finds
// all that lose something.
func (m *Metadata) writeDetails() (err error) {
	for _, id := range m.changedIDs() {
		if m.super.DetailsRoot, err = m.details.Insert(m.super.DetailsRoot, m.thins[id].d, uint64(id)); err != nil {
			return pdata.In("device details", err)
		}
	}
	maps.DeleteFunc(m.thins, func(_ uint32, t *Thin) bool { return t.opens == 0 })
	return nil
}

// changedIDs are the ids of the thins to write, ascending.
func (m *Metadata) changedIDs() (ids []uint32) {
	for id, t := range m.thins {
		if t.changed {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// write does steps 2 to 6.
func (m *Metadata) write() error {
	m.data.Commit()
	if err := m.tm.PreCommit(); err != nil {
		return err
	}
	next := m.raw
	m.super.Data, m.super.Metadata = m.data.Root(), m.tm.Map().Root()
	m.super.Encode(next[:])
	if err := m.tm.Commit(superBlock, KindSuper, next[:]); err != nil {
		return err
	}
	m.raw = next
	return nil
}

// Abort goes back to the last commit by reading everything again from the
// superblock. Thins stay open; AbortedChanges tells which ones lost changes. An
// error means that the metadata has failed for good.
func (m *Metadata) Abort() error {
	if err := m.usable(); err != nil {
		return err
	}
	m.inService = true
	err := m.bm.ReadRaw(superBlock, m.raw[:])
	if err == nil {
		err = m.load()
	}
	if err == nil {
		m.bm.Forget(m.show)
		err = m.openMaps()
	}
	if err == nil {
		err = m.reloadThins()
	}
	if err != nil {
		m.failed.Store(true)
		return err
	}
	m.broken, m.touched = nil, false
	return nil
}

func (m *Metadata) reloadThins() error {
	for id, t := range m.thins {
		if t.changed {
			t.aborted = true
		}
		t.changed = false
		if t.opens == 0 {
			delete(m.thins, id)
			continue
		}
		d, err := m.details.Lookup(m.super.DetailsRoot, uint64(id))
		if err != nil && err != syscall.ENODATA {
			return pdata.In("device details", err)
		}
		t.d = d
		m.renew = append(m.renew, t)
	}
	m.publish()
	return nil
}

// Changed reports whether a thin was changed in this transaction.
func (m *Metadata) Changed() bool {
	for _, t := range m.thins {
		if t.changed {
			return true
		}
	}
	return false
}

// Failed reports whether nothing but Close is of use any more.
func (m *Metadata) Failed() bool { return m.failed.Load() }

// SetReadOnly makes every change fail with EPERM.
func (m *Metadata) SetReadOnly() { m.bm.SetReadOnly(true) }

// SetReadWrite undoes SetReadOnly.
func (m *Metadata) SetReadWrite() { m.bm.SetReadOnly(false) }

// SetNeedsCheck sets the needs_check flag in the superblock on the disk,
// durably, and nothing else. It is for use right after Abort.
func (m *Metadata) SetNeedsCheck() error {
	if err := m.changeable(); err != nil {
		return err
	}
	m.inService = true
	m.super.Flags |= flagNeedsCheck
	next := m.raw
	le.PutUint32(next[4:], m.super.Flags)
	if err := m.bm.WriteSuper(superBlock, KindSuper, next[:]); err != nil {
		return err
	}
	m.raw = next
	return nil
}

// NeedsCheck is the needs_check flag.
func (m *Metadata) NeedsCheck() bool { return m.super.NeedsCheck() }
