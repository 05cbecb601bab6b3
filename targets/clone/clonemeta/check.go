package clonemeta

import (
	"fmt"

	"udm/blk"
	"udm/env"
	"udm/pdata"
)

// Check checks all metadata on dev and returns the first fault, and the superblock.
func Check(e env.Env, dev blk.Device) (*Super, error) {
	bm := pdata.NewBlockManager(e, dev, 0)
	b, err := bm.Read(superBlock, kindSuper)
	if err != nil {
		return nil, pdata.In("superblock", err)
	}
	var s Super
	s.decode(b.Bytes())
	if s.Version != superVersion || s.RegionSize == 0 {
		return nil, fmt.Errorf("corrupt metadata: version %d, regions of %d sectors", s.Version, s.RegionSize)
	}
	return &s, s.check(bm)
}

func (s *Super) check(bm *pdata.BlockManager) error {
	var first error
	fault := func(err error) {
		if first == nil {
			first = err
		}
	}
	c := pdata.NewChecker(bm, func(d *pdata.Corrupt) { fault(d) })
	c.Refs.Add(superBlock, 1)
	words, whole := c.Array("bitset", s.Bitset, 8)
	if whole && words != (s.Regions()+63)/64 {
		fault(fmt.Errorf("corrupt metadata: bitset has %d words for %d regions", words, s.Regions()))
	}
	v := c.Map("metadata space map", s.Metadata, true)
	if first == nil {
		v.Compare(c.Refs, func(_, nr uint64, have, want uint32) {
			fault(fmt.Errorf("corrupt metadata: block %d is counted %d times, used %d times", nr, have, want))
		})
	}
	return first
}
