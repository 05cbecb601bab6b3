package flakey

import (
	"udm/blk"
	"udm/dm"
)

// bi_opf of Linux 6.1 (include/linux/blk_types.h): the op is in the low bits.
const (
	opWrite   = 1
	reqFUA    = 1 << 17
	reqRahead = 1 << 19
	reqNowait = 1 << 21
)

// matches reports whether c, a read or write, has all the flags.
func (k *Corruption) matches(c *dm.Clone) bool {
	var opf uint32
	if c.Op == blk.Write {
		opf |= opWrite
	}
	if c.Flags&blk.FUA != 0 {
		opf |= reqFUA
	}
	if c.Flags&blk.Readahead != 0 {
		opf |= reqRahead
	}
	if c.Flags&blk.NoWait != 0 {
		opf |= reqNowait
	}
	return opf&k.Flags == k.Flags
}

// spoil overwrites the byte in c's buffers.
func (k *Corruption) spoil(c *dm.Clone) {
	at := k.Nth - 1
	for p := range c.Segments() {
		if at < uint64(len(p)) {
			p[at] = k.Value
			return
		}
		at -= uint64(len(p))
	}
}

// writeOther makes c write a corrupted copy of its data.
func (k *Corruption) writeOther(c *dm.Clone) {
	p := make([]byte, c.Bytes())
	c.CopyOut(p)
	c.SetData(p)
	k.spoil(c)
}
