// Package ebs is the target "ebs": it emulates logical blocks of one size on a device with
// blocks of another (drivers/md/dm-ebs-target.c).
//
//	ebs DEVICE OFFSET EMULATED [UNDERLYING]
//
// The manual is [Type]'s Doc.
//
// # Parts of blocks
//
// A unit is what is written below as a whole: a block of the UNDERLYING size, or a logical
// block of the device if that is larger. Bios of whole units are passed on. Of others a
// worker transfers what is whole, and the parts at the ends by way of a buffer of one unit:
//
//	Map ─ whole units ──────────────► passed on ────────────────────────► EndIO
//	 └─ a part of a unit ─► worker: reads the unit, changes it, writes it ──┘ ─► those that
//	                                                                            waited
//
// A write or discard holds its units until it has ended. Another one that needs one of
// them waits, oldest first, so that nothing is written to a unit between the moment when a
// worker reads it and that when it writes it. Reads wait for nobody: what a worker writes
// beside its data is what is there already.
//
// Lock order: mu, then the lock of queue.
package ebs

import (
	"sync"

	"udm/blk"
	"udm/dm"
	"udm/targets/internal/parallel"
	"udm/targets/internal/segment"
)

// Type returns the target type, for dm.NewControl.
func Type() *dm.Type {
	return &dm.Type{Name: "ebs", Version: [3]uint32{1, 0, 1}, New: construct, Parse: dm.Parser(ParseLine), Doc: doc}
}

const doc = `ebs: other logical blocks than those of the device below

Table:
  ebs DEVICE OFFSET EMULATED [UNDERLYING]
    DEVICE      the device below
    OFFSET      the sector of DEVICE where the target's first sector lies, a multiple of
                UNDERLYING
    EMULATED    sectors in a logical block of the mapped device: a power of two up to 8
    UNDERLYING  sectors in a block of DEVICE, a power of two; by default a logical block
                of DEVICE. What is smaller is read, changed and written as a whole block
  If the length is not a multiple of UNDERLYING, a write to the last block also writes
  the sectors behind it.

Status (dmsetup status):
  nothing

Messages:
  none

Example: 512-byte sectors on a disk with 4096-byte blocks
  0 2097152 ebs block=4096:/srv/disk.img 0 1
`

type ebs struct {
	target  *dm.Target
	segment segment.Segment
	line    *Line
	logical uint64 // sectors; the device below takes multiples of it
	unit    uint64 // sectors; see the package comment
	queue   parallel.Queue

	mu      sync.Mutex
	busy    []span      // guarded by mu; units of writes and discards under way
	waiting []*dm.Clone // guarded by mu; for units that are busy, the oldest one first
}

func construct(t *dm.Target, args []string) (dm.Mapper, error) {
	line, wrong := ParseLine(args)
	if line != nil && line.Start >= t.Len {
		return nil, invalid(badOffset)
	}
	if wrong != nil {
		return nil, wrong
	}
	seg, err := segment.Open(t, line.Place, "Device lookup failed")
	if err != nil {
		return nil, err
	}
	e := &ebs{target: t, segment: seg, line: line, logical: uint64(seg.Dev.Limits().LogicalBlock) / blk.SectorSize}
	if e.unit = e.underlying(); e.segment.Start%e.unit != 0 {
		return nil, invalid("Device offset must be multiple of underlying block size")
	}
	e.unit = max(e.unit, e.logical)
	t.NumFlush, t.NumDiscard = 1, 1
	e.queue.Init(t.Env(), "dm-ebs", e.workers(), func() func(*dm.Clone) { return (&worker{ebs: e}).work })
	return e, nil
}

func (e *ebs) underlying() uint64 {
	if e.line.Underlying != 0 {
		return uint64(e.line.Underlying)
	}
	return e.logical
}

// workers is how many clones may be transferred at the same time, with a buffer of one
// unit each.
func (e *ebs) workers() int {
	const most, memory = 16, 16 << 20
	return int(max(1, min(most, memory/(e.unit*blk.SectorSize))))
}

func (e *ebs) Close() { e.queue.Close() }

func (e *ebs) Map(c *dm.Clone) dm.Outcome {
	e.segment.Map(c)
	switch {
	case c.Op == blk.Flush:
		return dm.Remapped
	case c.Op == blk.Read && (c.Sector|c.Sectors)%e.logical == 0:
		return dm.Remapped
	case c.Op == blk.Discard && !e.shrink(c):
		c.Complete(blk.OK)
		return dm.Submitted
	}
	whole := (c.Sector|c.Sectors)%e.unit == 0
	switch {
	case !whole && c.Flags&blk.NoWait != 0:
		c.Complete(blk.WouldBlock)
		return dm.Submitted
	case c.Op != blk.Read && !e.take(c):
		return dm.Submitted
	case whole:
		return dm.Remapped
	}
	e.queue.Push(c)
	return dm.Submitted
}

// shrink leaves whole units of a discard, and reports whether there are any.
func (e *ebs) shrink(c *dm.Clone) bool {
	first := (c.Sector + e.unit - 1) / e.unit * e.unit
	end := c.EndSector() / e.unit * e.unit
	if first >= end {
		return false
	}
	c.Sector, c.Sectors = first, end-first
	return true
}

// EndIO lets those go on that wait for the units of a write.
func (e *ebs) EndIO(c *dm.Clone, st blk.Status) (blk.Status, dm.EndOutcome) {
	if p := c.PerIO.(*perIO); p.busy {
		e.leave(p)
	}
	return st, dm.EndDone
}

func (e *ebs) Status(kind dm.StatusKind, _ dm.StatusFlags) string {
	if kind == dm.Info {
		return ""
	}
	return (&Line{e.segment.Place(), e.line.Emulated, e.line.Underlying}).String()
}

func (e *ebs) Areas() []dm.Area { return []dm.Area{e.segment.Area(e.target.Len)} }

func (e *ebs) Hint(l *blk.Limits) {
	l.LogicalBlock = uint32(e.line.Emulated) * blk.SectorSize
	l.PhysicalBlock = max(l.LogicalBlock, uint32(e.underlying())*blk.SectorSize)
	l.MinIO = l.PhysicalBlock
	if l.OptIO%l.PhysicalBlock != 0 {
		l.OptIO = 0
	}
}

// Extents is the map of the device below.
func (e *ebs) Extents(offset, sectors uint64) []blk.Extent {
	return e.segment.Extents(offset, sectors)
}
