package cachetools

import (
	"udm/pdata"
	"udm/targets/cache/cachemeta"
)

// Block is a block of the cache that is in use.
type Block struct {
	CBlock uint32
	OBlock uint64
	Dirty  bool // as the metadata says
}

// blocksOf calls fn for each block of the cache that is in use, in order. damage is
// called for what is skipped; nil: stop at damage.
func blocksOf(bm *pdata.BlockManager, s *cachemeta.Super, damage func(error), fn func(Block) error) error {
	var dirty []uint64
	if s.Version >= 2 {
		words, err := bitsOf(bm, s.DirtyRoot, words(uint64(s.CacheBlocks)), damage)
		if err != nil {
			return pdata.In("dirty bitset", err)
		}
		dirty = words
	}
	return pdata.In("mapping array", pdata.WalkArray(bm, s.Mappings, 8, damage, func(first uint64, values []byte, n int) error {
		for i := range n {
			at := first + uint64(i)
			m := cachemeta.MappingOf(le.Uint64(values[8*i:]))
			if m.Flags&cachemeta.Valid == 0 || at >= uint64(s.CacheBlocks) {
				continue
			}
			b := Block{uint32(at), m.OBlock, m.Flags&cachemeta.Dirty != 0}
			if s.Version >= 2 {
				b.Dirty = dirty[at/64]>>(at%64)&1 != 0
			}
			if err := fn(b); err != nil {
				return err
			}
		}
		return nil
	}))
}

// bitsOf reads a bitset of n words. Of what is damaged all bits are set: in doubt a block
// is dirty.
func bitsOf(bm *pdata.BlockManager, root, n uint64, damage func(error)) ([]uint64, error) {
	if n > bm.Blocks()*uint64(pdata.ArrayEntries(8)) {
		n = bm.Blocks() * uint64(pdata.ArrayEntries(8))
	}
	bits := make([]uint64, n)
	for i := range bits {
		bits[i] = ^uint64(0)
	}
	err := pdata.WalkArray(bm, root, 8, damage, func(first uint64, values []byte, k int) error {
		for i := range k {
			if at := first + uint64(i); at < n {
				bits[at] = le.Uint64(values[8*i:])
			}
		}
		return nil
	})
	return bits, err
}

// hintsOf reads the hints.
func hintsOf(bm *pdata.BlockManager, s *cachemeta.Super, damage func(error)) (map[uint32]uint32, error) {
	hints := map[uint32]uint32{}
	if s.Hints == 0 || s.HintSize != 4 {
		return hints, nil
	}
	err := pdata.WalkArray(bm, s.Hints, 4, damage, func(first uint64, values []byte, n int) error {
		for i := range n {
			hints[uint32(first)+uint32(i)] = le.Uint32(values[4*i:])
		}
		return nil
	})
	return hints, pdata.In("hint array", err)
}
