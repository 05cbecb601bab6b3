package thinmeta

import "syscall"

// AllocDataBlock reserves a free data block. It gets its reference when Insert maps
// it, so a crash or an abort leaks nothing. ENOSPC, unwrapped, if there is none.
func (m *Metadata) AllocDataBlock() (block uint64, err error) {
	if err := m.sb.Changeable(); err != nil {
		return 0, err
	}
	if block, err = m.data.FindFree(m.taken.Has); err == nil {
		m.taken.Add(block, block+1)
	}
	return block, err
}

// TakeData keeps the unreferenced data blocks [begin, end) from being allocated until
// ReleaseData.
func (m *Metadata) TakeData(begin, end uint64) { m.taken.Add(begin, end) }

// ReleaseData undoes AllocDataBlock and TakeData.
func (m *Metadata) ReleaseData(begin, end uint64) { m.taken.Remove(begin, end) }

// IncData adds a reference to each data block of [begin, end).
func (m *Metadata) IncData(begin, end uint64) error {
	return m.add(func() error { return m.data.Inc(begin, end) })
}

// DecData drops a reference to each data block of [begin, end).
func (m *Metadata) DecData(begin, end uint64) error {
	return m.add(func() error { return m.data.Dec(begin, end) })
}

// DataRefs is a data block's reference count.
func (m *Metadata) DataRefs(block uint64) (uint32, error) {
	if err := m.sb.Usable(); err != nil {
		return 0, err
	}
	return m.data.Count(block)
}

// MetadataRefs is a metadata block's reference count.
func (m *Metadata) MetadataRefs(block uint64) (uint32, error) { return m.tm.Ref(block) }

// DataShared reports whether a data block's reference count is more than 1.
func (m *Metadata) DataShared(block uint64) (bool, error) {
	n, err := m.DataRefs(block)
	return n > 1, err
}

// DataBlockSize is the size of data blocks and thin blocks in sectors.
func (m *Metadata) DataBlockSize() uint32 { return m.super.DataBlockSize }

// DataBlocks is the size of the data device in data blocks.
func (m *Metadata) DataBlocks() uint64 { return m.data.Blocks() }

// FreeData is the number of free data blocks, without reserved ones.
func (m *Metadata) FreeData() uint64 {
	free := m.data.Free()
	return free - min(free, m.taken.Len())
}

// MetadataBlocks is the size of the metadata device in blocks of 4 KiB.
func (m *Metadata) MetadataBlocks() uint64 { return m.tm.Map().Blocks() }

// FreeMetadata is the number of free metadata blocks, without those reserved for
// commits.
func (m *Metadata) FreeMetadata() uint64 {
	free := m.tm.Map().Free()
	return free - min(free, m.reserve)
}

// growStep is the number of data blocks that are added at a time. All of their
// bitmaps, 4 MiB, are in the cache before the first one can be written.
const growStep = 1 << 24

// ResizeData sets the size of the data device in data blocks. EINVAL if that is
// smaller than now.
func (m *Metadata) ResizeData(blocks uint64) error {
	if err := m.sb.Changeable(); err != nil {
		return err
	}
	old := m.data.Size()
	if blocks <= old {
		return growing(blocks, old)
	}
	for ; old < blocks; old = m.data.Size() {
		err := m.change(func() error { return m.data.Extend(min(growStep, blocks-old)) })
		if err != nil {
			return err
		}
	}
	return nil
}

// ResizeMetadata sets the size of the metadata device in blocks, up to
// MaxMetadataBlocks. EINVAL if that is smaller than now.
func (m *Metadata) ResizeMetadata(blocks uint64) error {
	if err := m.sb.Changeable(); err != nil {
		return err
	}
	blocks = min(blocks, MaxMetadataBlocks)
	old := m.tm.Map().Blocks()
	if blocks <= old {
		return growing(blocks, old)
	}
	return m.change(func() error {
		defer m.setReserve()
		return m.tm.Map().Extend(blocks - old)
	})
}

func growing(blocks, old uint64) error {
	if blocks < old {
		return syscall.EINVAL
	}
	return nil
}

// SetLowWatermark sets a function to be called when an allocation lets the number of
// free metadata blocks, including the reserve, fall to blocks. It runs on the owner
// in the middle of a change and must not call back.
func (m *Metadata) SetLowWatermark(blocks uint64, fn func()) { m.tm.Map().SetThreshold(blocks, fn) }
