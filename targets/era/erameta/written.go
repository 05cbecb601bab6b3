package erameta

import "udm/pdata"

// Written returns a bit for each block of [begin, end): whether it was written in era
// since or later. The bit of block begin is the lowest of the first word.
func (m *Metadata) Written(since, begin, end uint32) (words []uint64, err error) {
	words = make([]uint64, (uint64(end-begin)+63)/64)
	add := func(b uint32) { words[(b-begin)/64] |= 1 << ((b - begin) % 64) }
	err = m.sb.Change(func() (err error) { // of the cached word
		m.super.Current.Root, err = m.current.Flush(m.super.Current.Root)
		return err
	})
	if err != nil {
		return nil, err
	}
	var bad error
	err = m.sets.Scan(m.super.Sets, uint64(since), func(_ uint64, w Writeset) bool {
		bad = m.inSet(w, begin, end, add)
		return bad == nil
	})
	if err == nil {
		err = bad
	}
	if w := m.super.Current; err == nil && w.Root != 0 && m.super.Era >= since {
		err = m.inSet(w, begin, end, add)
	}
	if err != nil {
		return nil, pdata.In("writesets", err)
	}
	for b := begin; b < end; b++ {
		era, err := m.eras.Get(m.super.Eras, uint64(b))
		if err != nil {
			return nil, pdata.In("era array", err)
		}
		if era >= since {
			add(b)
		}
	}
	return words, nil
}

// inSet calls add for the blocks of a writeset in [begin, end).
func (m *Metadata) inSet(w Writeset, begin, end uint32, add func(uint32)) error {
	bits := pdata.NewBitset(m.tm)
	for b := begin; b < min(end, w.Bits); b++ {
		_, set, err := bits.Test(w.Root, uint64(b))
		if err != nil {
			return err
		}
		if set {
			add(b)
		}
	}
	return nil
}
