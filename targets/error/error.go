// Package errortarget is the target "error": every I/O fails
// (drivers/md/dm-target.c).
//
//	error
//
// The manual is [Type]'s Doc. The target has no state and no lock.
package errortarget

import "udm/dm"

// Type returns the target type, for dm.NewControl.
func Type() *dm.Type {
	return &dm.Type{Name: "error", Version: [3]uint32{1, 5, 0}, Features: dm.Wildcard, New: construct, Parse: dm.Parser(ParseLine), Doc: doc}
}

const doc = `error: every I/O fails with EIO

Table:
  error
    Arguments are allowed and mean nothing.
    The target may stand in for any other, also where a device's target type
    must not change: "dmsetup remove --force" and "dmsetup wipe_table" load it.

Status (dmsetup status):
  nothing

Messages:
  none

Example: a disk with eight bad sectors
  0 1000 linear /srv/a.img 0
  1000 8 error
  1008 2096144 linear /srv/a.img 1008
`

type always struct{}

func construct(t *dm.Target, _ []string) (dm.Mapper, error) {
	t.NumDiscard = 1
	return always{}, nil
}

func (always) Map(*dm.Clone) dm.Outcome { return dm.Kill }
func (always) Close()                   {}
