package pdata

import (
	"cmp"
	"slices"
	"syscall"
)

// span is blocks [begin, end).
type span struct{ begin, end uint64 }

// spans are the runs of consecutive blocks among n little-endian u64 values, in
// ascending order; block extracts the block number from a value. Each run lies in
// one bitmap, even if damaged values name a block twice.
func (tm *TM) spans(values []byte, n int, block func(uint64) uint64) []span {
	ss := tm.scratch[:0]
	for i := range n {
		nr := block(le.Uint64(values[8*i:]))
		if last := len(ss) - 1; last >= 0 && ss[last].end == nr && nr%perBitmap != 0 {
			ss[last].end++
		} else {
			ss = append(ss, span{nr, nr + 1})
		}
	}
	slices.SortFunc(ss, func(a, b span) int { return cmp.Compare(a.begin, b.begin) })
	tm.scratch = ss
	return ss
}

// add changes the counts of all blocks of ss by delta and returns how many more
// blocks are in use. ss ascends; add may change it.
func (l *ll) add(ss []span, delta int32) (allocated int64, err error) {
	for _, s := range ss {
		if err := l.check(s.begin, s.end); err != nil {
			return 0, err
		}
	}
	for len(ss) > 0 {
		var n int64
		n, ss, err = l.addInBitmap(ss, delta)
		allocated += n
		if err != nil {
			return allocated, err
		}
	}
	return allocated, nil
}

// addInBitmap changes the counts of those first blocks of ss that one bitmap
// counts, and returns the others. It enters the new bitmap into a metadata map's
// index before any count changes: changing high counts allocates blocks, and that
// search must see the blocks that this call allocates.
func (l *ll) addInBitmap(ss []span, delta int32) (allocated int64, rest []span, err error) {
	i := ss[0].begin / perBitmap
	e, err := l.load(i)
	if err != nil {
		return 0, ss, err
	}
	s, _, err := l.tm.shadow(e.block, kindBitmap, true)
	if err != nil {
		return 0, ss, err
	}
	e.block = s.nr
	if l.index != nil {
		l.index[i].block = s.nr
		l.changed = true
	}
	free := e.free
	if rest, err = l.addToCounts(s.data[:], i, &e, ss, delta); err != nil {
		return 0, rest, err
	}
	allocated = int64(free) - int64(e.free)
	l.root.Allocated += uint64(allocated)
	return allocated, rest, l.save(i, e)
}

// addToCounts changes the counts in bitmap i, which e describes.
func (l *ll) addToCounts(b bitmap, i uint64, e *indexEntry, ss []span, delta int32) (rest []span, err error) {
	first, stop := i*perBitmap, (i+1)*perBitmap
	for ; len(ss) > 0 && ss[0].begin < stop; ss = ss[1:] {
		for nr := ss[0].begin; nr < min(ss[0].end, stop); nr++ {
			old, now, err := l.addToOne(b, uint32(nr-first), nr, delta)
			if err != nil {
				return ss, err
			}
			e.changed(uint32(nr-first), old, now)
		}
		if ss[0].end > stop {
			ss[0].begin = stop
			break
		}
	}
	return ss, nil
}

// changed keeps the summary of a bitmap right when the count of an entry changes.
func (e *indexEntry) changed(bit, old, now uint32) {
	switch {
	case old == 0 && now != 0:
		e.free--
		if e.none == bit {
			e.none = bit + 1
		}
	case old != 0 && now == 0:
		e.free++
		e.none = min(e.none, bit)
	}
}

func (l *ll) addToOne(b bitmap, bit uint32, nr uint64, delta int32) (old, now uint32, err error) {
	if old = b.get(bit); old == manyRefs {
		if old, err = l.many(nr); err != nil {
			return
		}
	}
	switch {
	case delta < 0 && old == 0:
		return 0, 0, corrupt(nr, "reference count would fall below 0")
	case delta > 0 && old == ^uint32(0):
		return 0, 0, corrupt(nr, "reference count overflows")
	}
	now = old + uint32(delta)
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
