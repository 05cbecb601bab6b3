package eratools

import (
	"fmt"

	"udm/blk"
	"udm/env"
	"udm/pdata"
	"udm/targets/era/erameta"
)

// source is metadata to be read.
type source struct {
	bm     *pdata.BlockManager
	super  erameta.Super
	damage func(error) // called for what is skipped; nil: stop at damage
}

// open reads the superblock, or that of the metadata snapshot.
func open(e env.Env, dev blk.Device, snap bool, damage func(error)) (*source, error) {
	s := &source{bm: pdata.NewBlockManager(e, dev, 0), damage: damage}
	super, err := erameta.ReadSuperAt(s.bm, erameta.SuperBlock)
	if err == nil && snap {
		if super.Held == 0 {
			return nil, fmt.Errorf("no metadata snapshot taken; take one with the message take_metadata_snap")
		}
		blocks := super.Blocks
		super, err = erameta.ReadSuperAt(s.bm, super.Held)
		if err == nil {
			// The writeset of the era that began with the snapshot is not kept.
			super.Current.Root, super.Blocks = 0, max(super.Blocks, blocks)
		}
	}
	if err != nil {
		return nil, err
	}
	s.super = *super
	if s.super.Blocks > erameta.MaxBlocks {
		return nil, fmt.Errorf("corrupt metadata: a device of %d blocks", s.super.Blocks)
	}
	return s, nil
}

// writesets calls fn for each writeset in the order of eras.
func (s *source) writesets(fn func(era uint32, w erameta.Writeset) error) error {
	err := pdata.WalkLeaves(s.bm, s.super.Sets, erameta.WritesetCodec.Size, s.damage, func(l pdata.Leaf) error {
		for i := range l.Len() {
			if err := fn(uint32(l.Key(i)), erameta.WritesetCodec.Get(l.Value(i))); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil && s.super.Current.Root != 0 {
		err = fn(s.super.Era, s.super.Current)
	}
	return pdata.In("writesets", err)
}

// bits calls fn for each bit of a writeset in order.
func (s *source) bits(w erameta.Writeset, fn func(block uint32, set bool) error) error {
	return pdata.In("writeset", pdata.WalkArray(s.bm, w.Root, 8, s.damage, func(first uint64, values []byte, n int) error {
		for i := range n {
			word := le.Uint64(values[8*i:])
			begin := (first + uint64(i)) * 64
			for b := begin; b < min(begin+64, uint64(w.Bits)); b++ {
				if err := fn(uint32(b), word>>(b%64)&1 != 0); err != nil {
					return err
				}
			}
		}
		return nil
	}))
}

// eras calls fn for each block of the era array in order.
func (s *source) eras(fn func(block, era uint32) error) error {
	return pdata.In("era array", pdata.WalkArray(s.bm, s.super.Eras, 4, s.damage, func(first uint64, values []byte, n int) error {
		for i := range n {
			if err := fn(uint32(first)+uint32(i), le.Uint32(values[4*i:])); err != nil {
				return err
			}
		}
		return nil
	}))
}
