package thinmeta

import (
	"strconv"
	"syscall"

	"udm/pdata"
)

// Mapping is where a block of a thin device is mapped to.
type Mapping struct {
	Block  uint64 // data block
	Shared bool   // others may use it: it must not be written in place
}

// Range is a run of thin blocks that are mapped to a run of data blocks.
type Range struct {
	ThinBegin, ThinEnd uint64
	DataBegin          uint64
	Shared             bool
}

// tries bounds how often a reader starts again after a change by the owner.
const tries = 8

// TryFind returns the mapping of a block from cached metadata, without waiting. Any
// goroutine may call it. ENODATA if the block is not mapped, EAGAIN if only the owner
// can tell.
func (t *Thin) TryFind(block uint64) (Mapping, error) {
	m := t.m
	keys := [2]uint64{uint64(t.id), block}
	for range tries {
		v := m.bm.Version()
		if v&1 != 0 {
			continue
		}
		if m.Failed() {
			return Mapping{}, syscall.EINVAL
		}
		value, found, ok := m.maps.TryLookup(m.readers.root.Load(), keys[:])
		snap, behind := t.shownSnap.Load(), m.readers.behind.Load()
		if m.bm.Version() != v {
			continue
		}
		switch {
		case !ok, !found && behind:
			return Mapping{}, syscall.EAGAIN
		case !found:
			return Mapping{}, syscall.ENODATA
		}
		bt := BlockTimeOf(value)
		return Mapping{bt.Block, snap > bt.Time}, nil
	}
	return Mapping{}, syscall.EAGAIN
}

// Find returns the mapping of a block. ENODATA if it is not mapped.
func (t *Thin) Find(block uint64) (Mapping, error) {
	if err := t.m.sb.Usable(); err != nil {
		return Mapping{}, err
	}
	v, err := t.m.maps.Lookup(t.m.super.MappingRoot, uint64(t.id), block)
	if err != nil {
		return Mapping{}, t.in(err)
	}
	return t.mapping(v), t.m.bm.Settle()
}

func (t *Thin) mapping(v uint64) Mapping {
	bt := BlockTimeOf(v)
	return Mapping{bt.Block, t.d.Snapshotted > bt.Time}
}

func (t *Thin) in(err error) error {
	switch err.(type) {
	case nil, syscall.Errno:
		return err // every look-up ends here
	}
	return pdata.In("device "+strconv.FormatUint(uint64(t.id), 10), err)
}

// FindRange returns the first run of mapped blocks in [begin, end). ENODATA if no
// block is mapped.
func (t *Thin) FindRange(begin, end uint64) (r Range, err error) {
	if err := t.m.sb.Usable(); err != nil {
		return r, err
	}
	root, err := t.m.bottomRoot(t.id)
	if err != nil {
		return r, err
	}
	err = t.m.bottoms.Scan(root, begin, func(k, v uint64) bool {
		m := t.mapping(v)
		if r.ThinBegin == r.ThinEnd && k < end {
			r = Range{k, k + 1, m.Block, m.Shared}
			return true
		}
		return k < end && r.extend(k, m)
	})
	if err == nil && r.ThinBegin == r.ThinEnd {
		err = syscall.ENODATA
	}
	return r, t.in(err)
}

// extend adds block k to a run if its mapping continues the run.
func (r *Range) extend(k uint64, m Mapping) bool {
	if k != r.ThinEnd || m.Block != r.DataBegin+(k-r.ThinBegin) || m.Shared != r.Shared {
		return false
	}
	r.ThinEnd++
	return true
}

// FindRanges appends the mapped runs of [begin, end) to rs, in order, up to most
// blocks. The search can continue at next, which is end if there is nothing left.
// After an error, next is the end of the last run found.
func (t *Thin) FindRanges(rs []Range, begin, end, most uint64) (found []Range, next uint64, err error) {
	if err := t.m.sb.Usable(); err != nil {
		return rs, begin, err
	}
	root, err := t.m.bottomRoot(t.id)
	if err != nil {
		return rs, begin, err
	}
	next = end
	behind := begin
	err = t.m.bottoms.Scan(root, begin, func(k, v uint64) bool {
		if k >= end || most == 0 {
			next = min(k, end)
			return false
		}
		most--
		behind = k + 1
		m := t.mapping(v)
		if n := len(rs); n == 0 || !rs[n-1].extend(k, m) {
			rs = append(rs, Range{k, k + 1, m.Block, m.Shared})
		}
		return true
	})
	if err != nil {
		next = behind
	}
	return rs, next, t.in(err)
}

// Insert maps a block to a data block from AllocDataBlock. A data block that was
// mapped there before loses a reference. If the block was unmapped before, TryFind
// may return EAGAIN for it until Show or Commit.
func (t *Thin) Insert(block, data uint64) error {
	m := t.m
	return m.add(func() error {
		m.readers.behind.Store(true)
		m.taken.Remove(data, data+1)
		if err := m.data.Inc(data, data+1); err != nil {
			return t.in(err)
		}
		v := BlockTime{data, m.super.Time & (1<<24 - 1)}.Value()
		root, inserted, err := m.maps.InsertNotify(m.super.MappingRoot, v, uint64(t.id), block)
		if err != nil {
			return t.in(err)
		}
		m.super.MappingRoot = root
		t.changed = true
		if inserted {
			t.d.Mapped++
		} else {
			m.readers.unshown = true
		}
		return nil
	})
}

// Remove unmaps a block. ENODATA if it is not mapped.
func (t *Thin) Remove(block uint64) error {
	if err := t.m.sb.Changeable(); err != nil {
		return err
	}
	if _, err := t.Find(block); err != nil {
		return err
	}
	return t.RemoveRange(block, block+1)
}

// RemoveRange unmaps the blocks of [begin, end).
func (t *Thin) RemoveRange(begin, end uint64) error {
	m := t.m
	if err := m.sb.Changeable(); err != nil {
		return err
	}
	if _, err := t.FindRange(begin, end); err == syscall.ENODATA {
		return nil
	} else if err != nil {
		return err
	}
	return m.change(func() error { return t.in(t.removeRange(begin, end)) })
}

func (t *Thin) removeRange(begin, end uint64) error {
	m := t.m
	root, err := t.ownRoot()
	if err != nil {
		return err
	}
	root, n, err := m.bottoms.RemoveRange(root, begin, end)
	if err != nil {
		return err
	}
	t.d.Mapped -= n
	t.changed = true
	return t.setRoot(root)
}

// ownRoot returns the root of the mappings for a change. It stores the root again,
// which shadows the path to it: if the top tree is shared, this gives the root its
// second reference.
func (t *Thin) ownRoot() (uint64, error) {
	root, err := t.m.bottomRoot(t.id)
	if err != nil {
		return 0, err
	}
	return root, t.setRoot(root)
}

func (t *Thin) setRoot(root uint64) (err error) {
	t.m.super.MappingRoot, err = t.m.tops.Insert(t.m.super.MappingRoot, root, uint64(t.id))
	return err
}

// HighestMapped returns the highest mapped block; ok is false if no block is mapped.
func (t *Thin) HighestMapped() (block uint64, ok bool, err error) {
	if err := t.m.sb.Usable(); err != nil {
		return 0, false, err
	}
	root, err := t.m.bottomRoot(t.id)
	if err != nil {
		return 0, false, err
	}
	block, ok, err = t.m.bottoms.Highest(root)
	return block, ok, t.in(err)
}
