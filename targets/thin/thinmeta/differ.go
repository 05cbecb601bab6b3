package thinmeta

// Difference is a block that two devices, or a device and nothing, have not in
// common.
type Difference struct {
	Block  uint64
	Mapped bool // in the second device; else in the first one only
	// Own: the first device got its mapping, or lost it, by itself after it was
	// made: it is not what it was a snapshot of any more.
	Own bool
}

// entriesPerNode is how many entries count as a node that was read.
const entriesPerNode = 128

// Differ calls fn for the blocks from begin on that are mapped to different data
// blocks in the devices since and id, or in one of them only, in order, until it
// returns false; without since, for those that are mapped in id. Metadata that both
// share are not read, and not many more than most nodes. What it has not looked at
// begins at next, if more says that there is such. ENODATA: there is no such device.
func (m *Metadata) Differ(since *uint32, id uint32, begin uint64, most int, fn func(Difference) bool) (next uint64, more bool, err error) {
	b, err := m.OpenThin(id)
	if err != nil {
		return begin, false, err
	}
	defer b.Close()
	root, err := m.bottomRoot(id)
	if err != nil {
		return begin, false, err
	}
	if since == nil {
		next, more, err = m.mappedFrom(root, begin, most*entriesPerNode, fn)
	} else {
		next, more, err = b.differ(*since, root, begin, most, fn)
	}
	if err != nil {
		return next, more, b.in(err)
	}
	return next, more, m.bm.Settle()
}

func (m *Metadata) mappedFrom(root, begin uint64, most int, fn func(Difference) bool) (next uint64, more bool, err error) {
	err = m.bottoms.Scan(root, begin, func(k, _ uint64) bool {
		if more = most == 0; more {
			next = k
			return false
		}
		most--
		next, more = k+1, !fn(Difference{Block: k, Mapped: true})
		return !more
	})
	return next, more, err
}

func (t *Thin) differ(since uint32, root, begin uint64, most int, fn func(Difference) bool) (next uint64, more bool, err error) {
	m := t.m
	a, err := m.OpenThin(since)
	if err != nil {
		return begin, false, err
	}
	defer a.Close()
	old, err := m.bottomRoot(since)
	if err != nil {
		return begin, false, err
	}
	return m.bottoms.Differ(old, root, begin, most, func(k uint64, va, vb *uint64) bool {
		if va != nil && vb != nil && BlockTimeOf(*va).Block == BlockTimeOf(*vb).Block {
			return true
		}
		return fn(Difference{Block: k, Mapped: vb != nil, Own: a.owns(t, va, vb)})
	})
}

// owns reports whether a has changed a block since it was made. What it was made
// with is older than itself, and so is what a later device has from before.
func (a *Thin) owns(b *Thin, va, vb *uint64) bool {
	if va != nil {
		return BlockTimeOf(*va).Time >= a.d.Created
	}
	return a.d.Created <= b.d.Created && BlockTimeOf(*vb).Time < a.d.Created
}
