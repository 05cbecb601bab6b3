package thintools

import (
	"errors"
	"fmt"

	"udm/blk"
	"udm/env"
	"udm/pdata"
	"udm/targets/thin/thinmeta"
)

// RepairOptions control Repair.
type RepairOptions struct {
	Overrides  Overrides
	CacheBytes int               // 0: 64 MiB
	Damage     func(error)       // called for damage that is skipped; may be nil
	Progress   func(done uint64) // mapped blocks so far; may be nil
}

// Repair writes new metadata to out from what is readable on in, which is not
// changed. If the superblock's roots are damaged it looks for others; if the
// superblock itself is damaged, all Overrides are needed.
func Repair(e env.Env, in, out blk.Device, o RepairOptions) error {
	src := newSource(e, in, DumpOptions{Repair: true, Damage: o.Damage, CacheBytes: o.CacheBytes, Overrides: o.Overrides})
	dst, err := newRestorer(e, out, RestoreOptions{Overrides: o.Overrides, Progress: o.Progress})
	if err != nil {
		return err
	}
	if err := src.emit(dst); err != nil {
		dst.bulk.Abandon()
		return err
	}
	return nil
}

// findSuper uses the superblock sb, and looks for better roots if its roots are
// damaged. err says why there is no sb.
func (s *source) findSuper(sb *thinmeta.Super, err error) error {
	if err != nil {
		if sb, err = s.makeSuper(err); err != nil {
			return err
		}
	} else if s.rootsGood(sb) {
		s.super = *sb
		return nil
	}
	r, ok := newRootFinder(s.bm).best()
	if ok {
		sb.MappingRoot, sb.DetailsRoot, sb.Time = r.mapping, r.details, r.time
	} else if sb.MappingRoot == 0 {
		return errors.New("the metadata cannot be repaired: no usable trees were found")
	}
	s.super = *sb
	return nil
}

// makeSuper builds a superblock from the overrides.
func (s *source) makeSuper(why error) (*thinmeta.Super, error) {
	o := s.o.Overrides
	if o.TransactionID == 0 || o.DataBlockSize == 0 || o.DataBlocks == 0 {
		return nil, fmt.Errorf("%w; transaction id, data block size and number of data blocks must be given to repair this", why)
	}
	s.damage(why)
	return &thinmeta.Super{Version: thinmeta.SuperVersion, TransactionID: o.TransactionID, DataBlockSize: o.DataBlockSize,
		MetadataBlockSize: pdata.BlockSectors, Data: pdata.MapRoot{Blocks: o.DataBlocks}}, nil
}

// rootsGood reports whether the device tree and the details tree can be read
// completely.
func (s *source) rootsGood(sb *thinmeta.Super) bool {
	nothing := func(pdata.Leaf) error { return nil }
	for root, size := range map[uint64]int{sb.MappingRoot: 8, sb.DetailsRoot: thinmeta.DetailsSize} {
		if err := pdata.WalkLeaves(s.bm, root, size, nil, nothing); err != nil {
			s.damage(err)
			return false
		}
	}
	return true
}
