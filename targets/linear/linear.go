// Package linear is the target "linear": it maps a range of the mapped device to
// a range of one lower device (drivers/md/dm-linear.c).
//
//	linear DEVICE OFFSET
//
// The manual is [Type]'s Doc. The target has no state and no lock.
package linear

import (
	"udm/dm"
	"udm/targets/internal/segment"
)

// Type returns the target type, for dm.NewControl.
func Type() *dm.Type {
	return &dm.Type{Name: "linear", Version: [3]uint32{1, 4, 0}, New: construct, Parse: dm.Parser(ParseLine), Doc: doc}
}

const doc = `linear: a range of one device

Table:
  linear DEVICE OFFSET
    DEVICE   the device below
    OFFSET   the sector of DEVICE where the target's first sector lies

Status (dmsetup status):
  nothing

Messages:
  none

Example: join two disks of 1 GiB to one of 2 GiB
  0 2097152 linear /srv/a.img 0
  2097152 2097152 linear /srv/b.img 0
`

type linear struct {
	segment segment.Segment
	len     uint64 // sectors
}

func construct(t *dm.Target, args []string) (dm.Mapper, error) {
	line, err := ParseLine(args)
	if err != nil {
		return nil, err
	}
	seg, err := segment.Open(t, line.Place, "Device lookup failed")
	if err != nil {
		return nil, err
	}
	t.NumFlush, t.NumDiscard, t.NumWriteZeroes = 1, 1, 1
	return &linear{seg, t.Len}, nil
}

func (l *linear) Map(c *dm.Clone) dm.Outcome {
	l.segment.Map(c)
	return dm.Remapped
}

func (l *linear) Close() {}

func (l *linear) Status(kind dm.StatusKind, _ dm.StatusFlags) string {
	if kind == dm.TableText {
		return (&Line{l.segment.Place()}).String()
	}
	return ""
}

func (l *linear) Areas() []dm.Area { return []dm.Area{l.segment.Area(l.len)} }
