// Package dust is the target "dust": a disk with bad blocks, which messages add and
// writes heal (drivers/md/dm-dust.c).
//
//	dust DEVICE OFFSET BLOCK
//
// The manual is [Type]'s Doc. Lock order: mu is a leaf. I/O does not take it while bad
// blocks are disabled.
package dust

import (
	"sync"
	"sync/atomic"
	"syscall"

	"udm/blk"
	"udm/dm"
	"udm/targets/internal/segment"
)

// Type returns the target type, for dm.NewControl.
func Type() *dm.Type {
	return &dm.Type{Name: "dust", Version: [3]uint32{1, 0, 0}, New: construct,
		Parse: dm.Parser(ParseLine), ParseStatus: dm.StatusParser(ParseStatus), Doc: doc}
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
	segment segment.Segment
	len     uint64 // sectors
	block   uint64 // sectors
	enabled atomic.Bool
	quiet   atomic.Bool

	mu  sync.Mutex
	bad map[uint64]uint8 // guarded by mu; by block: how many more writes fail
}

func construct(t *dm.Target, args []string) (dm.Mapper, error) {
	l, wrong := ParseLine(args)
	switch {
	case l != nil && uint64(l.Block) > t.Len*blk.SectorSize:
		return nil, dm.Errorf(syscall.EINVAL, "Block size is too large")
	case wrong != nil:
		return nil, wrong
	}
	d := &dust{len: t.Len, block: uint64(l.Block) / blk.SectorSize, bad: make(map[uint64]uint8)}
	var err error
	if d.segment, err = segment.Open(t, l.Place, ""); err != nil {
		return nil, dm.Errorf(syscall.EINVAL, "Device lookup failed")
	}
	t.MaxIOLen = d.block
	t.NumFlush, t.NumDiscard = 1, 1
	return d, nil
}

// Map checks the block of the first sector: reads and writes lie within one block. Other
// ops count as writes, even flushes.
func (d *dust) Map(c *dm.Clone) dm.Outcome {
	d.segment.Map(c)
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
		return (&Line{d.segment.Place(), uint32(d.block * blk.SectorSize)}).String()
	}
	return (&Status{d.segment.Dev.Name(), d.enabled.Load(), d.quiet.Load()}).String()
}

func (d *dust) Areas() []dm.Area { return []dm.Area{d.segment.Area(d.len)} }
