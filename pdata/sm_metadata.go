package pdata

import (
	"fmt"
	"slices"
	"syscall"
)

// blockOp is a queued change of counts.
type blockOp struct {
	begin, end uint64
	delta      int32
}

// MetadataMap is the space map of the metadata device. It also counts its own
// blocks: changing a count allocates blocks, whose counts change too. Changes
// made within a change are queued and applied after the outermost one.
// (dm-space-map-metadata.c; the kernel's queue holds 1024 operations and fails
// when full, this one grows.)
type MetadataMap struct {
	states
	begin     uint64 // where the next search for a free block starts
	allocated uint64 // blocks allocated since the last commit or seal
	spare     uint64 // while a sealed transaction is being written: what was free when it was sealed

	depth int       // nesting of drain
	queue []blockOp // first in, first out
	boot  bool      // bootstrap: New returns blocks from begin on; all blocks before it are in use

	threshold uint64
	below     func() // called when the number of free blocks falls to threshold; nil: never
	lastFree  uint64 // number of free blocks after the last allocation
	known     bool   // lastFree is set
}

// Root is the map's root, for a superblock.
func (m *MetadataMap) Root() MapRoot { return m.cur.root }

// Blocks is the number of blocks in the map.
func (m *MetadataMap) Blocks() uint64 { return m.cur.root.Blocks }

// Free is the number of blocks that New can return: they were free at the last
// commit and still are. While a sealed transaction is being written, what it freed
// does not count.
func (m *MetadataMap) Free() uint64 {
	free := m.old.root.Blocks - m.old.root.Allocated
	if m.disk != nil {
		free = m.spare
	}
	return free - min(free, m.allocated)
}

// SetThreshold sets fn to be called when an allocation reduces the number of free
// blocks to n or less. fn runs on the owner, in the middle of a change.
func (m *MetadataMap) SetThreshold(n uint64, fn func()) { m.threshold, m.below = n, fn }

// queued is the sum that the queued changes will add to a block's count.
func (m *MetadataMap) queued(nr uint64) (n int32) {
	for _, op := range m.queue {
		if op.begin <= nr && nr < op.end {
			n += op.delta
		}
	}
	return n
}

// Count is a block's reference count.
func (m *MetadataMap) Count(nr uint64) (uint32, error) {
	if m.boot {
		return boolCount(nr < m.begin), nil
	}
	n, err := m.cur.count(nr)
	return uint32(int32(n) + m.queued(nr)), In("metadata space map", err)
}

func boolCount(b bool) uint32 {
	if b {
		return 1
	}
	return 0
}

// shared reports whether a block has more than one reference. In doubt it returns
// true.
func (m *MetadataMap) shared(nr uint64) (bool, error) {
	if m.boot {
		return false, nil
	}
	q := m.queued(nr)
	if q > 1 {
		return true, nil
	}
	n, err := m.cur.lookup(nr)
	if err != nil {
		return false, In("metadata space map", err)
	}
	return n == manyRefs || int32(n)+q > 1, nil
}

// Inc adds a reference to each block of [begin, end).
func (m *MetadataMap) Inc(begin, end uint64) error { return m.change(blockOp{begin, end, 1}) }

// Dec drops a reference to each block of [begin, end).
func (m *MetadataMap) Dec(begin, end uint64) error { return m.change(blockOp{begin, end, -1}) }

func (m *MetadataMap) change(op blockOp) error {
	if err := m.cur.check(op.begin, op.end); err != nil {
		return In("metadata space map", err)
	}
	m.queue = append(m.queue, op)
	if m.depth > 0 || m.boot {
		return nil
	}
	return In("metadata space map", m.drain())
}

// drain applies the queued changes, including those added meanwhile. A change
// stays in the queue until it is applied, because New must not return its blocks
// before.
func (m *MetadataMap) drain() error {
	m.depth++
	defer func() { m.depth-- }()
	for len(m.queue) > 0 {
		op := m.queue[0]
		if _, err := m.cur.add([]span{{op.begin, op.end}}, op.delta); err != nil {
			m.queue = m.queue[:0]
			return err
		}
		m.queue = slices.Delete(m.queue, 0, 1)
	}
	return nil
}

// ErrFull reports that no metadata block is free.
var ErrFull = fmt.Errorf("no free metadata block: %w", syscall.ENOSPC)

// New allocates a block that is free now and was free in every state that a crash
// can lead back to. It returns ErrFull if there is none.
func (m *MetadataMap) New() (uint64, error) {
	if m.boot {
		return m.bootNew()
	}
	refuse := func(nr uint64) bool { return m.queued(nr) != 0 }
	nr, err := m.find(m.begin, m.cur.root.Blocks, refuse)
	if err == syscall.ENOSPC {
		nr, err = m.find(0, m.begin, refuse)
	}
	if err == syscall.ENOSPC {
		return 0, ErrFull
	}
	if err != nil {
		return 0, In("metadata space map", err)
	}
	m.begin = nr + 1
	m.allocated++
	if err := m.Inc(nr, nr+1); err != nil {
		return 0, err
	}
	m.checkThreshold()
	return nr, nil
}

func (m *MetadataMap) bootNew() (uint64, error) {
	if m.begin >= m.cur.root.Blocks {
		return 0, ErrFull
	}
	m.begin++
	return m.begin - 1, nil
}

// checkThreshold calls below only when the threshold is crossed.
func (m *MetadataMap) checkThreshold() {
	free := m.Free()
	was := m.known && m.lastFree <= m.threshold
	m.lastFree, m.known = free, true
	if m.below != nil && free <= m.threshold && !was {
		m.below()
	}
}

// end completes the index and ends the running transaction.
func (m *MetadataMap) end() error {
	if err := m.saveIndex(); err != nil {
		return In("metadata space map", err)
	}
	m.spare = m.Free()
	m.seal()
	m.allocated = 0
	return nil
}

func (m *MetadataMap) saveIndex() error {
	if !m.cur.changed {
		return nil
	}
	s, _, err := m.cur.tm.shadow(m.cur.root.BitmapRoot, kindIndex, true)
	if err != nil {
		return err
	}
	m.cur.root.BitmapRoot = s.nr
	for i, e := range m.cur.index {
		indexCodec.Put(s.data[indexHead+16*i:], e)
	}
	m.cur.changed = false
	return nil
}

// Extend adds extra blocks to the map. The blocks that it needs come from the new
// ones, so that a full device can grow.
func (m *MetadataMap) Extend(extra uint64) error {
	used := m.cur.root.Blocks
	m.begin, m.boot = used, true
	defer func() { m.boot = false }()
	if err := m.cur.extend(extra); err != nil {
		return In("metadata space map", err)
	}
	// Counting the new blocks in use may use more of them: repeat until it does
	// not.
	for used != m.begin {
		m.queue = append(m.queue, blockOp{used, m.begin, 1})
		used = m.begin
		if err := m.drain(); err != nil {
			return In("metadata space map", err)
		}
		if err := m.saveIndex(); err != nil {
			return In("metadata space map", err)
		}
	}
	return nil
}
