// Package unstriped is the target "unstriped": one stripe of a striped device on
// its own (drivers/md/dm-unstripe.c).
//
//	unstriped STRIPES CHUNK STRIPE DEVICE OFFSET
//
// The manual is [Type]'s Doc. Unlike Linux 6.1, which loses them, the target
// passes flushes on. It has no state and no lock.
package unstriped

import (
	"fmt"
	"syscall"

	"udm/dm"
	"udm/targets/internal/leg"
)

// Type is the target type, to be given to dm.NewControl.
func Type() *dm.Type {
	return &dm.Type{Name: "unstriped", Version: [3]uint32{1, 1, 0}, New: construct, Doc: doc}
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
	leg     leg.Leg
	begin   uint64 // of the target
	len     uint64
	stripes uint32
	stripe  uint32
	chunk   uint64 // sectors
}

func construct(t *dm.Target, args []string) (dm.Mapper, error) {
	if len(args) != 5 {
		return nil, dm.Errorf(syscall.EINVAL, "Invalid number of arguments")
	}
	u := &unstriped{begin: t.Begin, len: t.Len}
	if err := u.parseShape(args); err != nil {
		return nil, err
	}
	// The device comes before its offset, and all errors are EINVAL.
	l, err := leg.Open(t, dm.Place{Device: args[3]}, "")
	if err != nil {
		return nil, dm.Errorf(syscall.EINVAL, "Couldn't get striped device")
	}
	if l.Start, err = leg.Sector(args[4], "Invalid striped device offset"); err != nil {
		return nil, err
	}
	if t.Len%u.chunk != 0 {
		return nil, dm.Errorf(syscall.EINVAL, "Target length not divisible by chunk size")
	}
	u.leg = l
	t.MaxIOLen = u.chunk
	t.NumFlush = 1
	return u, nil
}

// parseShape lets the stripe be as large as the count, as Linux does: that one
// lies a row further.
func (u *unstriped) parseShape(args []string) error {
	var err error
	if u.stripes, err = dm.ParseUint32(args[0]); err != nil || u.stripes == 0 {
		return dm.Errorf(syscall.EINVAL, "Invalid stripe count")
	}
	chunk, err := dm.ParseUint32(args[1])
	if err != nil || chunk == 0 {
		return dm.Errorf(syscall.EINVAL, "Invalid chunk_size")
	}
	u.chunk = uint64(chunk)
	if u.stripe, err = dm.ParseUint32(args[2]); err != nil {
		return dm.Errorf(syscall.EINVAL, "Invalid stripe number")
	}
	if u.stripe > u.stripes && u.stripes > 1 {
		return dm.Errorf(syscall.EINVAL, "Please provide stripe between [0, # of stripes]")
	}
	return nil
}

func (u *unstriped) Map(c *dm.Clone) dm.Outcome {
	c.SetDev(u.leg.Dev)
	c.Sector = u.leg.Start + u.place(c.Sector)
	return dm.Remapped
}

// place is where a sector of the mapped device lies behind the leg's begin.
func (u *unstriped) place(sector uint64) uint64 {
	row := sector / u.chunk
	return sector + (row*uint64(u.stripes-1)+uint64(u.stripe))*u.chunk
}

func (u *unstriped) Close() {}

func (u *unstriped) Status(kind dm.StatusKind, _ dm.StatusFlags) string {
	if kind == dm.Info {
		return ""
	}
	return fmt.Sprintf("%d %d %d %v", u.stripes, u.chunk, u.stripe, &u.leg)
}

func (u *unstriped) Areas() []dm.Area { return []dm.Area{u.leg.Area(u.len)} }
