// Package dust is the target "dust": a disk with bad blocks that come by message
// and go when they are written (drivers/md/dm-dust.c).
//
//	dust DEVICE OFFSET BLOCK
//
// The manual is [Type]'s Doc. Lock order: mu is a leaf; while bad blocks are
// disabled I/O does not take it.
package dust

import (
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"

	"udm/blk"
	"udm/dm"
	"udm/targets/internal/leg"
)

// Type is the target type, to be given to dm.NewControl.
func Type() *dm.Type {
	return &dm.Type{Name: "dust", Version: [3]uint32{1, 0, 0}, New: construct, Doc: doc}
}

const doc = `dust: a disk with bad blocks

Table:
  dust DEVICE OFFSET BLOCK
    DEVICE   the device below
    OFFSET   the sector of DEVICE where the target's first sector lies
    BLOCK    bytes in a block: a power of two, 512 to 1073741824, and not more
             than the target's length

Status (dmsetup status):
  DEVICE fail_read_on_bad_block|bypass quiet|verbose

Messages:
  addbadblock B [COUNT]   block B is bad; COUNT writes fail before one heals it
  removebadblock B        make it good
  queryblock B            tell whether it is bad
  countbadblocks          tell how many there are
  listbadblocks           list them
  clearbadblocks          make all good
  enable                  bad blocks fail from now on: a read with EIO; a write
                          heals the block
  disable                 they work, and stay bad; so it is at first
  quiet                   toggle between quiet and verbose
  Blocks are counted from the beginning of DEVICE.

Example: block 60 cannot be read until it is written
  0 2097152 dust /srv/a.img 0 512
  dmsetup message NAME 0 addbadblock 60
  dmsetup message NAME 0 enable
`

type dust struct {
	leg     leg.Leg
	len     uint64
	block   uint64 // sectors
	enabled atomic.Bool
	quiet   atomic.Bool

	mu  sync.Mutex
	bad map[uint64]uint8 // guarded by mu; by block: how many writes fail yet
}

const maxBlock = 2097152 // sectors

func construct(t *dm.Target, args []string) (dm.Mapper, error) {
	if len(args) != 3 {
		return nil, dm.Errorf(syscall.EINVAL, "Invalid argument count")
	}
	d := &dust{len: t.Len, bad: make(map[uint64]uint8)}
	if err := d.parseBlock(t, args[2]); err != nil {
		return nil, err
	}
	start, err := leg.Sector(args[1], "Invalid device offset sector")
	if err != nil {
		return nil, err
	}
	if d.leg, err = leg.Open(t, dm.Place{Device: args[0], Start: start}, ""); err != nil {
		return nil, dm.Errorf(syscall.EINVAL, "Device lookup failed")
	}
	t.MaxIOLen = d.block
	t.NumFlush, t.NumDiscard = 1, 1
	return d, nil
}

func (d *dust) parseBlock(t *dm.Target, word string) error {
	n, err := dm.ParseUint32(word)
	d.block = uint64(n) / blk.SectorSize
	switch {
	case err != nil || n == 0:
		return dm.Errorf(syscall.EINVAL, "Invalid block size parameter")
	case n < blk.SectorSize:
		return dm.Errorf(syscall.EINVAL, "Block size must be at least 512")
	case n&(n-1) != 0:
		return dm.Errorf(syscall.EINVAL, "Block size must be a power of 2")
	case d.block > min(t.Len, maxBlock):
		return dm.Errorf(syscall.EINVAL, "Block size is too large")
	}
	return nil
}

// Map looks at the block of the first sector: reads and writes lie within one.
// What is no read counts as a write, flushes included.
func (d *dust) Map(c *dm.Clone) dm.Outcome {
	d.leg.Map(c)
	if d.enabled.Load() && d.fails(c.Sector/d.block, c.Op == blk.Read) {
		return dm.Kill
	}
	return dm.Remapped
}

func (d *dust) fails(block uint64, read bool) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	n, bad := d.bad[block]
	switch {
	case !bad || read:
		return bad
	case n > 0:
		d.bad[block] = n - 1
		return true
	}
	delete(d.bad, block)
	return false
}

func (d *dust) Close() {}

func (d *dust) Status(kind dm.StatusKind, _ dm.StatusFlags) string {
	if kind == dm.TableText {
		return fmt.Sprintf("%v %d", &d.leg, d.block*blk.SectorSize)
	}
	mode, voice := "bypass", "verbose"
	if d.enabled.Load() {
		mode = "fail_read_on_bad_block"
	}
	if d.quiet.Load() {
		voice = "quiet"
	}
	return d.leg.Dev.Name() + " " + mode + " " + voice
}

func (d *dust) Areas() []dm.Area { return []dm.Area{d.leg.Area(d.len)} }
