package thinmeta

import (
	"maps"
	"slices"
	"syscall"

	"udm/pdata"
)

// The steps of a commit and what a crash leaves of each are in [pdata.Super].
// TestDataBeforeMetadata holds its first step, TestCrash and TestCrashInFormat cut
// the power before each write and flush, TestOutOfData holds the last step,
// TestFailEach lets each I/O fail.

// SetPreCommit makes every Commit call fn first; an error of fn stops it. The
// pool flushes its data device there.
func (m *Metadata) SetPreCommit(fn func() error) { m.sb.SetPreCommit(fn) }

// Commit makes all changes durable. It does nothing before the metadata is in
// service, that is before the first change since Open; after that it always
// calls the pre-commit callback, but writes only when something was changed.
func (m *Metadata) Commit() error {
	return m.sb.Commit(func() error {
		for _, t := range m.thins {
			t.changed = false
		}
		m.plenty = 0
		m.publish()
		return nil
	})
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

// Abort goes back to the last commit by reading everything again from the
// superblock. Thins stay open; AbortedChanges tells which ones lost changes. Data
// blocks that were taken stay so. An error means that the metadata has failed for
// good.
func (m *Metadata) Abort() error { return m.abort(true) }

// Undo is Abort of changes that nobody has been told of: no thin has lost any.
func (m *Metadata) Undo() error { return m.abort(false) }

func (m *Metadata) abort(lost bool) error {
	if err := m.sb.Abort(); err != nil {
		return err
	}
	if err := m.reloadThins(lost); err != nil {
		m.sb.Fail()
		return err
	}
	return nil
}

func (m *Metadata) reloadThins(lost bool) error {
	m.deletion = deletion{}
	for id, t := range m.thins {
		t.aborted = t.aborted || t.changed && lost
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
		m.readers.renew = append(m.readers.renew, t)
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

// Err is why nothing can be changed or committed until Abort; nil if that is not so.
func (m *Metadata) Err() error { return m.sb.Err() }

// Failed reports whether nothing but Close is of use any more.
func (m *Metadata) Failed() bool { return m.sb.Failed() }

// SetReadOnly makes every change fail with EPERM.
func (m *Metadata) SetReadOnly() { m.bm.SetReadOnly(true) }

// SetReadWrite undoes SetReadOnly.
func (m *Metadata) SetReadWrite() { m.bm.SetReadOnly(false) }

// SetNeedsCheck sets the needs_check flag in the superblock on the disk, and
// nothing else. It is for use right after Abort.
func (m *Metadata) SetNeedsCheck() error { return m.sb.SetNeedsCheck() }

// MustCheck reports whether the flag is set, or should be but could not be
// written.
func (m *Metadata) MustCheck() bool { return m.sb.MustCheck() }

// NeedsCheck is the needs_check flag as the disk has it.
func (m *Metadata) NeedsCheck() bool { return m.sb.NeedsCheck() }

// Mend gives blocks free that are counted once and used never, and clears the
// needs_check flag.
func (m *Metadata) Mend(data, metadata []uint64) error {
	return m.change(func() error {
		m.sb.ClearNeedsCheck()
		for _, b := range data {
			if err := m.data.Dec(b, b+1); err != nil {
				return err
			}
		}
		for _, b := range metadata {
			if err := m.tm.Dec(b); err != nil {
				return err
			}
		}
		return nil
	})
}
