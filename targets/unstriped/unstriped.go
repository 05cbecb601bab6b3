// Package unstriped is the target "unstriped": one stripe of a striped device on
// its own (drivers/md/dm-unstripe.c).
//
//	unstriped STRIPES CHUNK STRIPE DEVICE OFFSET
//
// The manual is [Type]'s Doc. The target passes flushes on; Linux 6.1 loses them. It has
// no state and no lock.
package unstriped

import (
	"syscall"

	"udm/dm"
	"udm/targets/internal/segment"
)

// Type returns the target type, for dm.NewControl.
func Type() *dm.Type {
	return &dm.Type{Name: "unstriped", Version: [3]uint32{1, 1, 0}, New: construct, Parse: dm.Parser(ParseLine), Doc: doc}
}

const doc = `unstriped: one stripe of a striped device on its own

Table:
  unstriped STRIPES CHUNK STRIPE DEVICE OFFSET
    STRIPES  how many stripes DEVICE has
    CHUNK    sectors that go to one stripe before the next has its turn
    STRIPE   which one it is, from 0 on
    DEVICE   the device below, with all stripes
    OFFSET   the sector of DEVICE where its stripes begin
  The length must be a multiple of CHUNK. Sectors count from the beginning of
  the mapped device, so this should be its only target.

Status (dmsetup status):
  nothing

Messages:
  none

Example: the second of two disks behind a RAID 0 controller with 64 KiB chunks
  0 1048576 unstriped 2 128 1 /srv/raid.img 0
`

type unstriped struct {
	segment segment.Segment
	begin   uint64 // the target's first sector in the mapped device
	len     uint64 // sectors
	stripes uint32
	stripe  uint32
	chunk   uint64 // sectors
}

func construct(t *dm.Target, args []string) (dm.Mapper, error) {
	line, wrong := ParseLine(args)
	if line == nil {
		return nil, wrong
	}
	// As in the kernel, an error about the device comes before one about its offset,
	// and all errors are EINVAL.
	seg, err := segment.Open(t, line.Place, "")
	switch {
	case err != nil:
		return nil, dm.Errorf(syscall.EINVAL, "Couldn't get striped device")
	case wrong != nil:
		return nil, wrong
	}
	u := &unstriped{segment: seg, begin: t.Begin, len: t.Len, stripes: line.Stripes, stripe: line.Stripe, chunk: uint64(line.Chunk)}
	if t.Len%u.chunk != 0 {
		return nil, dm.Errorf(syscall.EINVAL, "Target length not divisible by chunk size")
	}
	t.MaxIOLen = u.chunk
	t.NumFlush = 1
	return u, nil
}

func (u *unstriped) Map(c *dm.Clone) dm.Outcome {
	c.SetDev(u.segment.Dev)
	c.Sector = u.segment.Start + u.place(c.Sector)
	return dm.Remapped
}

// place is the segment's sector at which a sector of the mapped device lies.
func (u *unstriped) place(sector uint64) uint64 {
	row := sector / u.chunk
	return sector + (row*uint64(u.stripes-1)+uint64(u.stripe))*u.chunk
}

func (u *unstriped) Close() {}

func (u *unstriped) Status(kind dm.StatusKind, _ dm.StatusFlags) string {
	if kind == dm.Info {
		return ""
	}
	return (&Line{u.stripes, uint32(u.chunk), u.stripe, u.segment.Place()}).String()
}

func (u *unstriped) Areas() []dm.Area { return []dm.Area{u.segment.Area(u.len)} }
