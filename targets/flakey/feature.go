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

// spoil overwrites a byte in c's buffers, if there are that many.
func spoil(c *dm.Clone, at uint64, value byte) {
	for p := range c.Segments() {
		if at < uint64(len(p)) {
			p[at] = value
			return
		}
		at -= uint64(len(p))
	}
}

// spoilRandom overwrites a byte anywhere in c's buffers with any value.
func (f *flakey) spoilRandom(c *dm.Clone) {
	spoil(c, f.random()%c.Bytes(), byte(f.random()))
}

// happens throws the dice.
func (f *flakey) happens(chance uint32) bool {
	return chance > 0 && f.random()%Certain < uint64(chance)
}

// spoilWrite makes c write a corrupted copy of its data if it is to be corrupted.
func (f *flakey) spoilWrite(c *dm.Clone) {
	k := &f.line.Corrupt
	fixed, random := k.Writes && k.matches(c), f.happens(f.line.RandomWrite)
	if !fixed && !random {
		return
	}
	p := make([]byte, c.Bytes())
	c.CopyOut(p)
	c.SetData(p)
	if fixed {
		spoil(c, k.Nth-1, k.Value)
	}
	if random {
		f.spoilRandom(c)
	}
}

// spoilRead corrupts what c has read if it is to be corrupted.
func (f *flakey) spoilRead(c *dm.Clone) {
	if k := &f.line.Corrupt; k.Nth > 0 && !k.Writes && k.matches(c) {
		spoil(c, k.Nth-1, k.Value)
	}
	if f.happens(f.line.RandomRead) {
		f.spoilRandom(c)
	}
}
