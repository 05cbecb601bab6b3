// Package zero is the target "zero": reads return zeroes, and writes are discarded
// (drivers/md/dm-zero.c).
//
//	zero
//
// The manual is [Type]'s Doc. The target has no state and no lock.
package zero

import (
	"udm/blk"
	"udm/dm"
)

// Type returns the target type, for dm.NewControl.
func Type() *dm.Type {
	return &dm.Type{Name: "zero", Version: [3]uint32{1, 1, 0}, New: construct, Parse: dm.Parser(ParseLine), Doc: doc}
}

const doc = `zero: reads give zeroes, writes are forgotten

Table:
  zero
    It takes no arguments and no device.
    Discards and write-zeroes are not supported, as in Linux 6.1.

Status (dmsetup status):
  nothing

Messages:
  none

Example: a disk of 1 PiB that is empty for ever
  0 2199023255552 zero
`

type zero struct{}

func construct(t *dm.Target, args []string) (dm.Mapper, error) {
	if _, err := ParseLine(args); err != nil {
		return nil, err
	}
	t.NumDiscard = 1
	return zero{}, nil
}

func (zero) Map(c *dm.Clone) dm.Outcome {
	switch {
	case c.Op == blk.Read && c.Flags&blk.Readahead == 0:
		c.Zero()
	case c.Op != blk.Write:
		return dm.Kill
	}
	c.Complete(blk.OK)
	return dm.Submitted
}

func (zero) Close() {}
