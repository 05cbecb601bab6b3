package pdata

import "syscall"

// SpaceMap counts the references to the blocks of a data device.
// (dm-space-map-disk.c.)
type SpaceMap struct {
	states
	begin     uint64 // where the next search for a free block starts
	allocated int64  // blocks allocated minus blocks freed since the last commit
}

// NewSpaceMap makes a map of a device of 0 blocks.
func NewSpaceMap(tm *TM) (*SpaceMap, error) {
	l := newLL(tm, false)
	var err error
	if l.root.BitmapRoot, err = l.tree.Empty(); err != nil {
		return nil, err
	}
	if l.root.RefRoot, err = l.refs.Empty(); err != nil {
		return nil, err
	}
	return &SpaceMap{states: states{cur: l, old: l.snapshot()}}, nil
}

// OpenSpaceMap opens the map at root.
func OpenSpaceMap(tm *TM, root MapRoot) *SpaceMap {
	l := newLL(tm, false)
	l.root = root
	return &SpaceMap{states: states{cur: l, old: l.snapshot()}}
}

// Root is the map's root, for a superblock.
func (m *SpaceMap) Root() MapRoot { return m.cur.root }

// Blocks is the size of the device at the last commit or seal.
func (m *SpaceMap) Blocks() uint64 { return m.old.root.Blocks }

// Free is the number of free blocks at the last commit or seal, minus those
// allocated and plus those freed since. A block that was freed may be counted
// although New cannot return it before the next commit is on disk.
func (m *SpaceMap) Free() uint64 {
	return uint64(int64(m.old.root.Blocks-m.old.root.Allocated) - m.allocated)
}

// Count is a block's reference count.
func (m *SpaceMap) Count(nr uint64) (uint32, error) { return m.cur.count(nr) }

// Size is the current size of the device in blocks.
func (m *SpaceMap) Size() uint64 { return m.cur.root.Blocks }

// New allocates the block that FindFree finds.
func (m *SpaceMap) New() (uint64, error) {
	nr, err := m.FindFree(nil)
	if err != nil {
		return 0, err
	}
	return nr, m.Inc(nr, nr+1)
}

// FindFree finds the next block that is free now, was free in every state that a
// crash can lead back to, and is not refused; nil refuses none. ENOSPC if there is
// none. The next search starts after it.
func (m *SpaceMap) FindFree(refuse func(nr uint64) bool) (uint64, error) {
	nr, err := m.find(m.begin, m.cur.root.Blocks, refuse)
	if err == syscall.ENOSPC {
		nr, err = m.find(0, m.begin, refuse)
	}
	if err == nil {
		m.begin = nr + 1
	}
	return nr, In("data space map", err)
}

// Inc adds a reference to each block of [begin, end).
func (m *SpaceMap) Inc(begin, end uint64) error { return m.add([]span{{begin, end}}, 1) }

// Dec drops a reference to each block of [begin, end).
func (m *SpaceMap) Dec(begin, end uint64) error { return m.add([]span{{begin, end}}, -1) }

// AddAll adds delta references to every block named by n little-endian u64s; block
// extracts the block number. It costs less than a call for each block.
func (m *SpaceMap) AddAll(values []byte, n int, block func(uint64) uint64, delta int32) error {
	return m.add(m.cur.tm.spans(values, n, block), delta)
}

func (m *SpaceMap) add(ss []span, delta int32) error {
	n, err := m.cur.add(ss, delta)
	m.allocated += n
	return In("data space map", err)
}

// Extend adds extra blocks to the map.
func (m *SpaceMap) Extend(extra uint64) error { return m.cur.extend(extra) }

// Seal ends the running transaction. Call it when all changes are made, within
// [Fields.Save].
func (m *SpaceMap) Seal() {
	m.seal()
	m.allocated = 0
}

// Durable allows blocks to be used again that the sealed transaction freed. Call it
// when that transaction is on disk.
func (m *SpaceMap) Durable() { m.durable() }
