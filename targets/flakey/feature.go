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

// matches reports whether c, which carries data, has all flags asked for.
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

// spoil overwrites the byte where c's data has it.
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

// writeOther has c write a spoiled copy of its data.
func (k *Corruption) writeOther(c *dm.Clone) {
	p := make([]byte, c.Bytes())
	c.CopyOut(p)
	c.SetData(p)
	k.spoil(c)
}
