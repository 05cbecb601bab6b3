package thintools

import (
	"errors"

	"udm/blk"
	"udm/env"
	"udm/pdata"
	"udm/targets/thin/thinmeta"
)

// Trim calls fn for each range [begin, end) of data blocks that no device uses, in
// order. They may be discarded on the data device while no program has the pool open.
func Trim(e env.Env, dev blk.Device, fn func(begin, end uint64) error) (*thinmeta.Super, error) {
	bm := pdata.NewBlockManager(e, dev, 0)
	s, err := thinmeta.ReadSuperAt(bm, thinmeta.SuperBlock)
	if err != nil {
		return nil, err
	}
	var damage []error
	c := pdata.NewChecker(bm, func(d *pdata.Corrupt) { damage = append(damage, d) })
	c.Lax = true
	v := c.Map("data space map", s.Data, false)
	if len(damage) > 0 {
		return s, errors.Join(damage...)
	}
	next := uint64(0)
	v.Compare(pdata.NewRefCounts(), func(_, nr uint64, _, _ uint32) {
		if nr > next && err == nil {
			err = fn(next, nr)
		}
		next = nr + 1
	})
	if len(damage) > 0 {
		return s, errors.Join(damage...)
	}
	if err == nil && next < s.Data.Blocks {
		err = fn(next, s.Data.Blocks)
	}
	return s, err
}

// MetadataSize estimates the bytes that the metadata device of a pool needs, for data
// of poolSize bytes in blocks of blockSize bytes and for thins devices and snapshots.
// The formula is that of thin_metadata_size.
func MetadataSize(blockSize, poolSize, thins uint64) uint64 {
	const perNode = (pdata.BlockSize - 64) / 16
	return (1 + 2*(poolSize/blk.SectorSize)/(blockSize/blk.SectorSize)/perNode + thins) * pdata.BlockSize
}
