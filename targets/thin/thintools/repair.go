package thintools

import (
	"errors"
	"fmt"

	"udm/blk"
	"udm/env"
	"udm/pdata"
	"udm/targets/thin/thinmeta"
)

// RepairOptions say how to repair.
type RepairOptions struct {
	Overrides  Overrides
	CacheBytes int               // 0: 64 MiB
	Damage     func(error)       // told of what is passed over; may be nil
	Progress   func(done uint64) // mapped blocks so far; may be nil
}

// Repair makes metadata on out from what can be read of in, which it leaves
// alone. Roots other than the superblock's are looked for when those are bad;
// when the superblock is bad as well, all Overrides are needed.
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

// findSuper takes over a superblock and looks for better roots when its own are
// damaged. err is why there is none.
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
		return errors.New("no trees were found to repair the metadata from")
	}
	s.super = *sb
	return nil
}

// makeSuper makes a superblock from the overrides.
func (s *source) makeSuper(why error) (*thinmeta.Super, error) {
	o := s.o.Overrides
	if o.TransactionID == 0 || o.DataBlockSize == 0 || o.DataBlocks == 0 {
		return nil, fmt.Errorf("%w; transaction id, data block size and number of data blocks must be given to repair this", why)
	}
	s.damage(why)
	return &thinmeta.Super{Version: thinmeta.SuperVersion, TransactionID: o.TransactionID, DataBlockSize: o.DataBlockSize,
		MetadataBlockSize: pdata.BlockSectors, Data: pdata.MapRoot{Blocks: o.DataBlocks}}, nil
}

// rootsGood reports whether the device tree and the details can be read whole.
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
