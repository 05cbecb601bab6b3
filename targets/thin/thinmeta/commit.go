package thinmeta

import (
	"slices"
	"syscall"

	"udm/pdata"
)

// [pdata.Super] lists the steps of a commit and the outcome of a crash after each.
// TestDataBeforeMetadata tests the first step, TestOutOfData the last; TestCrash and
// TestCrashInFormat cut the power before each write and flush; TestFailEach fails
// each I/O.

// SetPreCommit sets a function that every commit calls before it writes; if it fails,
// so does the commit. The pool flushes its data device in it. It may run beside the
// owner.
func (m *Metadata) SetPreCommit(fn func() error) { m.sb.SetPreCommit(fn) }

// Commit makes all changes durable. It does nothing before the first change since
// Open. After that it always calls the pre-commit function, but writes only if
// something was changed.
func (m *Metadata) Commit() error { return m.sb.Commit(m.durable) }

// Renew makes the next Commit write even if nothing was changed.
func (m *Metadata) Renew() { m.sb.Renew() }

// Seal ends the running transaction; the next one may begin. The caller calls Write
// on the result, on any goroutine, and then Finish. Until then it must not commit or
// abort.
func (m *Metadata) Seal() (*pdata.Sealed, error) {
	c, err := m.sb.Seal()
	if err == nil && c.Changed() {
		m.publish()
	}
	return c, err
}

// Finish takes the outcome of a sealed transaction's Write. After [blk.NoSpace] Commit
// goes on with it; after any other error everything must be aborted.
func (m *Metadata) Finish(c *pdata.Sealed, err error) error { return m.sb.Finish(c, err, m.durable) }

// durable is called when the sealed transaction is on disk.
func (m *Metadata) durable() error {
	m.data.Durable()
	for _, t := range m.thins {
		t.sealed = false
		m.put(t)
	}
	if m.sb.Err() == nil {
		m.publish()
	}
	return nil
}

// writeDetails updates the details tree. Thins count as changed or sealed until the
// commit has succeeded, so that an Abort finds all that lose changes.
func (m *Metadata) writeDetails() (err error) {
	for _, id := range m.changedIDs() {
		t := m.thins[id]
		if m.super.DetailsRoot, err = m.details.Insert(m.super.DetailsRoot, t.d, uint64(id)); err != nil {
			return pdata.In("device details", err)
		}
		t.changed, t.sealed = false, true
	}
	m.plenty = 0
	return nil
}

// changedIDs returns the ids of the changed thins in ascending order.
func (m *Metadata) changedIDs() (ids []uint32) {
	for id, t := range m.thins {
		if t.changed {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// Abort goes back to the last commit by reading everything again from the superblock.
// Thins stay open; AbortedChanges tells which of them lost changes. Reserved data
// blocks stay reserved. After an error the metadata has failed for good.
func (m *Metadata) Abort() error { return m.abort(true) }

// Undo is Abort for changes that were not acknowledged to anybody: no thin counts as
// having lost changes.
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
		t.aborted = t.aborted || (t.changed || t.sealed) && lost
		t.changed, t.sealed = false, false
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

// Uncommitted reports whether anything was changed in this transaction.
func (m *Metadata) Uncommitted() bool { return m.sb.Changed() }

// Err returns the error that prevents changes and commits until Abort, or nil.
func (m *Metadata) Err() error { return m.sb.Err() }

// Failed reports whether only Close can still succeed.
func (m *Metadata) Failed() bool { return m.sb.Failed() }

// SetReadOnly makes every change fail with EPERM.
func (m *Metadata) SetReadOnly() { m.bm.SetReadOnly(true) }

// SetReadWrite undoes SetReadOnly.
func (m *Metadata) SetReadWrite() { m.bm.SetReadOnly(false) }

// FlushRead makes durable what Open or Abort has read. Before that a flush of the data
// device alone is not enough for what is mapped.
func (m *Metadata) FlushRead() error { return m.sb.FlushRead() }

// SetNeedsCheck sets the needs_check flag in the superblock on the disk and changes
// nothing else. Call it right after Abort.
func (m *Metadata) SetNeedsCheck() error { return m.sb.SetNeedsCheck() }

// MustCheck reports whether needs_check is set, or should be set but could not be
// written.
func (m *Metadata) MustCheck() bool { return m.sb.MustCheck() }

// NeedsCheck reports whether needs_check is set on the disk.
func (m *Metadata) NeedsCheck() bool { return m.sb.NeedsCheck() }

// Mend frees blocks that are counted once but not used, and clears needs_check.
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
