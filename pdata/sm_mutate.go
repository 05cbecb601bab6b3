package pdata

import "syscall"

// add changes the counts of blocks by delta and returns how many more are in use.
func (l *ll) add(begin, end uint64, delta int32) (allocated int64, err error) {
	if err := l.check(begin, end); err != nil {
		return 0, err
	}
	return l.mutate(begin, end, func(nr uint64, old uint32) (uint32, error) {
		switch {
		case delta < 0 && old == 0:
			return 0, corrupt(nr, "reference count would fall below 0")
		case delta > 0 && old == ^uint32(0):
			return 0, corrupt(nr, "reference count overflows")
		}
		return old + uint32(delta), nil
	})
}

func (l *ll) mutate(begin, end uint64, fn func(nr uint64, old uint32) (uint32, error)) (allocated int64, err error) {
	for begin < end {
		i := begin / perBitmap
		stop := min(end, (i+1)*perBitmap)
		n, err := l.mutateBitmap(i, begin, stop, fn)
		allocated += n
		if err != nil {
			return allocated, err
		}
		begin = stop
	}
	return allocated, nil
}

// mutateBitmap changes counts in one bitmap. It enters the new bitmap into a
// metadata map's index before any count changes: changing high counts allocates
// blocks, and that search must see the blocks that this call allocates.
func (l *ll) mutateBitmap(i, begin, end uint64, fn func(nr uint64, old uint32) (uint32, error)) (allocated int64, err error) {
	e, err := l.load(i)
	if err != nil {
		return 0, err
	}
	s, _, err := l.tm.shadow(e.block, kindBitmap, true)
	if err != nil {
		return 0, err
	}
	e.block = s.nr
	if l.index != nil {
		l.index[i].block = s.nr
		l.changed = true
	}
	b := bitmap(s.data[:])
	for nr := begin; nr < end; nr++ {
		bit := uint32(nr - i*perBitmap)
		old, now, err := l.mutateOne(b, bit, nr, fn)
		if err != nil {
			return allocated, err
		}
		switch {
		case old == 0 && now != 0:
			allocated++
			e.free--
			if e.none == bit {
				e.none = bit + 1
			}
		case old != 0 && now == 0:
			allocated--
			e.free++
			e.none = min(e.none, bit)
		}
	}
	l.root.Allocated += uint64(allocated)
	return allocated, l.save(i, e)
}

func (l *ll) mutateOne(b bitmap, bit uint32, nr uint64, fn func(nr uint64, old uint32) (uint32, error)) (old, now uint32, err error) {
	if old = b.get(bit); old == manyRefs {
		if old, err = l.many(nr); err != nil {
			return
		}
	}
	if now, err = fn(nr, old); err != nil {
		return
	}
	b.set(bit, min(now, manyRefs))
	switch {
	case now >= manyRefs:
		l.root.RefRoot, err = l.refs.Insert(l.root.RefRoot, now, nr)
	case old >= manyRefs:
		l.root.RefRoot, err = l.refs.Remove(l.root.RefRoot, nr)
	}
	return old, now, In("reference counts", err)
}

// extend adds extra blocks to the map.
func (l *ll) extend(extra uint64) error {
	old := (l.root.Blocks + perBitmap - 1) / perBitmap
	n := (l.root.Blocks + extra + perBitmap - 1) / perBitmap
	if l.index != nil && n > perIndex {
		return syscall.EINVAL
	}
	l.root.Blocks += extra
	for i := old; i < n; i++ {
		s, err := l.tm.create(kindBitmap, true)
		if err != nil {
			return err
		}
		if err := l.save(i, indexEntry{block: s.nr, free: perBitmap}); err != nil {
			return err
		}
	}
	return nil
}
