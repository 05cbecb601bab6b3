package cachetools

import (
	"fmt"

	"udm/blk"
	"udm/env"
	"udm/pdata"
	"udm/targets/cache/cachemeta"
)

// WritebackOptions control Writeback.
type WritebackOptions struct {
	NoUpdate bool               // leave the blocks dirty in the metadata
	Failed   func(Block, error) // called for each block that could not be copied; may be nil
}

// Written is what Writeback has done.
type Written struct{ Copied, Failed int }

// Writeback copies dirty blocks from the cache device to the origin: all blocks after an
// unclean shutdown. The origin is flushed before the metadata says that they are clean,
// and the metadata says that the shutdown was clean if no block failed.
func Writeback(e env.Env, meta, fast, origin blk.Device, o WritebackOptions) (w Written, err error) {
	s, err := cachemeta.ReadSuper(e, meta)
	if err != nil {
		return w, err
	}
	if s.Version < 1 || s.Version > 2 || s.BlockSize == 0 || s.BlockSize > 1<<21 {
		return w, fmt.Errorf("the metadata has version %d and blocks of %d sectors", s.Version, s.BlockSize)
	}
	c := &copier{env: e, fast: fast, origin: origin, size: uint64(s.BlockSize), buf: make([]byte, uint64(s.BlockSize)*blk.SectorSize)}
	dirty := map[uint32]bool{} // of the blocks that are left
	err = blocksOf(pdata.NewBlockManager(e, meta, 0), s, nil, func(b Block) error {
		if s.Clean() && !b.Dirty {
			return nil
		}
		err := c.copy(b)
		if err == nil {
			w.Copied++
			return nil
		}
		w.Failed++
		dirty[b.CBlock] = true
		if o.Failed != nil {
			o.Failed(b, err)
		}
		return nil
	})
	if err == nil {
		err = blk.FlushDevice(e, origin)
	}
	if err != nil || o.NoUpdate || w.Copied+w.Failed == 0 {
		return w, err
	}
	return w, clean(e, meta, s, dirty)
}

type copier struct {
	env          env.Env
	fast, origin blk.Device
	size         uint64
	buf          []byte
}

func (c *copier) copy(b Block) error {
	if b.OBlock >= c.origin.Limits().Size/c.size || uint64(b.CBlock) >= c.fast.Limits().Size/c.size {
		return fmt.Errorf("block %d of the cache, which is block %d of the origin, is beyond the end of a device", b.CBlock, b.OBlock)
	}
	if err := blk.ReadSectors(c.env, c.fast, c.buf, uint64(b.CBlock)*c.size); err != nil {
		return err
	}
	return blk.WriteSectors(c.env, c.origin, c.buf, b.OBlock*c.size, 0)
}

// clean writes which blocks are still dirty. Hints and discards of an unclean shutdown
// are of no use: there are none any more.
func clean(e env.Env, meta blk.Device, s *cachemeta.Super, dirty map[uint32]bool) error {
	m, err := cachemeta.Open(e, meta, cachemeta.Options{})
	if err != nil {
		return err
	}
	d := cachemeta.Shutdown{
		Dirty:  func(cb uint32) bool { return dirty[cb] },
		Policy: cachemeta.Policy{Name: s.PolicyName, Version: s.PolicyVersion}, Stats: s.Stats,
		DiscardBlockSize: s.DiscardBlockSize, Discarded: func(uint64) bool { return false },
	}
	if s.Clean() {
		d.KeepDiscards = true
	}
	return m.Shutdown(d)
}
