package cachemeta

import "udm/pdata"

// Policy names a policy, whose hints no other one understands.
type Policy struct {
	Name     string
	Version  [3]uint32
	HintSize uint32
}

// Block is a block of the cache that is in use.
type Block struct {
	CBlock  uint32
	OBlock  uint64
	Dirty   bool
	Hint    uint32
	HasHint bool
}

// Load calls fn for each block of the cache that is in use, in order. After an unclean
// shutdown all are dirty. There are hints if the policy p has written them.
func (m *Metadata) Load(p Policy, fn func(Block) error) error {
	s := &m.super
	bits, err := m.dirtyWords()
	if err != nil {
		return err
	}
	hints, err := m.loadHints(p)
	if err != nil {
		return err
	}
	return pdata.In("mappings", m.mappings.Walk(s.Mappings, func(i, v uint64) error {
		at := MappingOf(v)
		if at.Flags&Valid == 0 || i >= uint64(s.CacheBlocks) {
			return nil
		}
		b := Block{CBlock: uint32(i), OBlock: at.OBlock, Dirty: true}
		if s.Clean() {
			b.Dirty = at.Flags&Dirty != 0
			if s.Version >= 2 {
				b.Dirty = i/64 < uint64(len(bits)) && bits[i/64]>>(i%64)&1 != 0
			}
		}
		if b.HasHint = i < uint64(len(hints)); b.HasHint {
			b.Hint = hints[i]
		}
		return fn(b)
	}))
}

func (m *Metadata) dirtyWords() (words []uint64, err error) {
	if s := &m.super; s.Version < 2 || !s.Clean() {
		return nil, nil
	}
	return m.words(m.dirty, m.super.DirtyRoot, "dirty bits")
}

func (m *Metadata) words(b *pdata.Bitset, root uint64, name string) (words []uint64, err error) {
	err = b.Walk(root, func(_, w uint64) error { words = append(words, w); return nil })
	return words, pdata.In(name, err)
}

func (m *Metadata) loadHints(p Policy) (hints []uint32, err error) {
	s := &m.super
	if !s.Clean() || s.Hints == 0 || p.HintSize != 4 || s.HintSize != 4 || s.PolicyName != p.Name || s.PolicyVersion[0] != p.Version[0] {
		return nil, nil
	}
	err = m.hints.Walk(s.Hints, func(_ uint64, h uint32) error { hints = append(hints, h); return nil })
	return hints, pdata.In("hints", err)
}

// LoadDiscards calls fn for each run of the origin's sectors [begin, end) that is
// discarded. After an unclean shutdown there is none.
func (m *Metadata) LoadDiscards(fn func(begin, end uint64)) error {
	s := &m.super
	if !s.Clean() || s.DiscardBlocks == 0 {
		return nil
	}
	words, err := m.words(m.discards, s.Discards, "discards")
	if err != nil {
		return err
	}
	n := min(s.DiscardBlocks, uint64(len(words))*64)
	set := func(i uint64) bool { return i < n && words[i/64]>>(i%64)&1 != 0 }
	for i := uint64(0); i < n; i++ {
		begin := i
		for set(i) {
			i++
		}
		if i > begin {
			fn(begin*s.DiscardBlockSize, i*s.DiscardBlockSize)
		}
	}
	return nil
}

// Shutdown is what is written when a cache is suspended.
type Shutdown struct {
	Dirty            func(cb uint32) bool
	Policy           Policy
	Hint             func(cb uint32) uint32
	DiscardBlockSize uint64
	DiscardBlocks    uint64
	Discarded        func(block uint64) bool
	KeepDiscards     bool // leave them as they are
	Stats            Stats
}

// Shutdown writes all that is to be remembered, and the clean-shutdown flag.
func (m *Metadata) Shutdown(d Shutdown) error {
	if err := m.goOn(); err != nil {
		return err
	}
	s := &m.super
	err := m.sb.Change(func() error {
		if err := m.saveDirty(d.Dirty); err != nil {
			return pdata.In("dirty bits", err)
		}
		if err := m.saveHints(d); err != nil {
			return pdata.In("hints", err)
		}
		if err := m.saveDiscards(d); err != nil {
			return pdata.In("discards", err)
		}
		s.Stats = d.Stats
		s.Flags |= FlagClean
		return nil
	})
	if err != nil {
		return err
	}
	return m.Commit()
}

func (m *Metadata) saveDirty(dirty func(uint32) bool) (err error) {
	s := &m.super
	if s.Version < 2 {
		return m.saveFlags(dirty)
	}
	if err := m.dirty.Del(s.DirtyRoot); err != nil {
		return err
	}
	s.DirtyRoot, err = m.dirty.New(uint64(s.CacheBlocks), func(i uint64) bool { return dirty(uint32(i)) })
	return err
}

// saveFlags changes the flags of the mappings that have others.
func (m *Metadata) saveFlags(dirty func(uint32) bool) (err error) {
	s := &m.super
	type change struct{ i, v uint64 }
	var changes []change
	err = m.mappings.Walk(s.Mappings, func(i, v uint64) error {
		at := MappingOf(v)
		was := at.Flags
		at.Flags &^= Dirty
		if at.Flags&Valid != 0 && dirty(uint32(i)) {
			at.Flags |= Dirty
		}
		if at.Flags != was {
			changes = append(changes, change{i, at.Value()})
		}
		return nil
	})
	for _, c := range changes {
		if err == nil {
			s.Mappings, err = m.mappings.Set(s.Mappings, c.i, c.v)
		}
	}
	return err
}

func (m *Metadata) saveHints(d Shutdown) (err error) {
	s := &m.super
	s.PolicyName, s.PolicyVersion = d.Policy.Name, d.Policy.Version
	if d.Policy.HintSize == 0 {
		return nil
	}
	s.HintSize = d.Policy.HintSize
	if s.Hints != 0 {
		if err := m.hints.Del(s.Hints); err != nil {
			return err
		}
	}
	s.Hints, err = m.hints.New(uint64(s.CacheBlocks), func(i uint64) (uint32, error) { return d.Hint(uint32(i)), nil })
	return err
}

func (m *Metadata) saveDiscards(d Shutdown) (err error) {
	s := &m.super
	if d.KeepDiscards {
		return nil
	}
	if err := m.discards.Del(s.Discards); err != nil {
		return err
	}
	s.DiscardBlockSize, s.DiscardBlocks = d.DiscardBlockSize, d.DiscardBlocks
	s.Discards, err = m.discards.New(d.DiscardBlocks, d.Discarded)
	return err
}
