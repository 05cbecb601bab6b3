// Package logwrites is the target "log-writes": it appends everything that is written to
// a device to a log as well, in the order in which it becomes durable
// (drivers/md/dm-log-writes.c; replay-log of xfstests reads such logs).
//
//	log-writes DEVICE LOGDEVICE
//
// The manual is [Type]'s Doc; the format of the log is in format.go.
//
// # Life of an entry
//
// Map copies the data of a write into an entry. When the write ends, the entry moves on:
//
//	write, discard ─ ends ─► unflushed ─ Map of a flush takes all ─► that flush
//	FUA write ───── ends ─► logging                                   │ ends
//	mark ─────────────────► logging ◄── what it took, then itself ────┘
//
// so a write that ends while a flush is under way belongs to the next flush. Writes that
// a write with FUA overwrites are logged before it. A work takes entries from logging
// and appends them to the log one after the other; it writes the superblock again after
// entries with FUA and after marks. I/O does not wait for the log: entries that wait
// for it, or for a flush, are in memory.
//
// Lock order: mu is a leaf.
package logwrites

import (
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"

	"udm/blk"
	"udm/dm"
	"udm/env"
	"udm/internal/list"
)

// Type returns the target type, for dm.NewControl.
func Type() *dm.Type {
	return &dm.Type{Name: "log-writes", Version: [3]uint32{1, 1, 0}, New: construct,
		Parse: dm.Parser(ParseLine), ParseStatus: dm.StatusParser(ParseStatus), Doc: doc}
}

const doc = `log-writes: a log of all writes, to be replayed up to any point

Table:
  log-writes DEVICE LOGDEVICE
    DEVICE      the device below; sector N of it is sector N of the mapped
                device
    LOGDEVICE   where the log goes; what it holds is overwritten

Status (dmsetup status):
  ENTRIES SECTOR [logging_disabled]
    ENTRIES   how many entries have been logged
    SECTOR    the last sector of the log that is in use
    The log stops when it is full or its device fails; the I/O goes on.

Messages:
  mark TEXT   put an entry with this text into the log

Writes appear in the log in the order in which they became durable: plain ones
before the flush that covers them, those with FUA when they end, behind older ones
that they overwrite. When the device is removed the rest follows, and a mark
dm-log-writes-end.

Example: what is on the disk when power fails during mkfs
  0 2097152 log-writes /srv/a.img /srv/log.img
  dmsetup message NAME 0 mark mkfs
`

type logWrites struct {
	target    *dm.Target
	dev       *dm.Dev
	logdev    *dm.Dev
	block     uint32 // bytes in a block of the log: dev's logical block
	noDiscard bool   // dev does not support discards; they are logged all the same
	queue     env.Queue
	work      *env.Work
	enabled   atomic.Bool // cleared under mu

	mu        sync.Mutex
	unflushed entries  // guarded by mu; ended, and not covered by a flush yet
	flushing  []*entry // guarded by mu; flushes under way
	logging   entries  // guarded by mu; to be appended
	logged    uint64   // guarded by mu; number of entries that the work has taken
	next      uint64   // guarded by mu; the log's first free sector
}

// entry is an entry of the log on its way there.
type entry struct {
	header
	data  []byte  // a block for the header, then the data of a write
	taken entries // of a flush: the writes that it covers
	next  *entry  // link of the list that it is in
}

func (e *entry) Link() **entry { return &e.next }

type entries = list.List[entry, *entry]

func construct(t *dm.Target, args []string) (dm.Mapper, error) {
	line, err := ParseLine(args)
	if err != nil {
		return nil, err
	}
	l := &logWrites{target: t}
	if l.dev, err = t.Open(line.Device, t.Writable()); err != nil {
		return nil, dm.Because(err, "Device lookup failed")
	}
	if l.logdev, err = t.Open(line.Log, t.Writable()); err != nil {
		return nil, dm.Because(err, "Log device lookup failed")
	}
	limits := l.dev.Limits()
	l.block, l.noDiscard = limits.LogicalBlock, limits.MaxDiscard == 0
	l.next = l.sectors(1)
	l.enabled.Store(true)
	l.queue = t.Env().NewQueue("dm-log-writes")
	l.work = env.NewWork(l.run)
	t.NumFlush, t.FlushSupported = 1, true
	t.NumDiscard, t.DiscardsSupported = 1, true
	return l, nil
}

// sectors converts blocks of the log to sectors, and blocks converts back.
func (l *logWrites) sectors(blocks uint64) uint64 { return blocks * uint64(l.block/blk.SectorSize) }
func (l *logWrites) blocks(sectors uint64) uint64 { return sectors / uint64(l.block/blk.SectorSize) }

// pending is the target's data for a clone: its entry, or nil.
type pending struct{ *entry }

func (l *logWrites) NewPerIO() any { return new(pending) }

func (l *logWrites) Map(c *dm.Clone) dm.Outcome {
	p := c.PerIO.(*pending)
	p.entry = nil
	c.SetDev(l.dev)
	if l.enabled.Load() && c.Op != blk.Read && (c.Sectors > 0 || c.Op == blk.Flush) {
		p.entry = l.entry(c)
	}
	if c.Op == blk.Discard && l.noDiscard {
		c.Complete(blk.OK)
		return dm.Submitted
	}
	return dm.Remapped
}

// entry makes the entry for c. A flush takes the entries of all writes that have ended.
func (l *logWrites) entry(c *dm.Clone) *entry {
	e := &entry{header: header{sector: l.blocks(c.Sector), blocks: l.blocks(c.Sectors)}}
	if c.Flags&blk.FUA != 0 {
		e.flags |= flagFUA
	}
	switch c.Op {
	case blk.Write:
		e.data = make([]byte, uint64(l.block)+c.Bytes())
		c.CopyOut(e.data[l.block:])
		return e
	case blk.Discard:
		e.flags |= flagDiscard
	case blk.Flush:
		e.header = header{flags: e.flags | flagFlush}
		l.mu.Lock()
		e.taken = l.unflushed.Take()
		l.flushing = append(l.flushing, e)
		l.mu.Unlock()
	}
	e.data = make([]byte, l.block)
	return e
}

// EndIO moves the entry on, even if the I/O has failed, because a part of it may have
// happened.
func (l *logWrites) EndIO(c *dm.Clone, st blk.Status) (blk.Status, dm.EndOutcome) {
	e := c.PerIO.(*pending).entry
	if e == nil {
		return st, dm.EndDone
	}
	l.mu.Lock()
	if e.flags&(flagFlush|flagFUA) == 0 {
		l.unflushed.Push(e)
		l.mu.Unlock()
		return st, dm.EndDone
	}
	if e.flags&flagFlush != 0 {
		l.flushing = slices.DeleteFunc(l.flushing, func(f *entry) bool { return f == e })
	} else {
		l.overwrittenLocked(e)
	}
	l.logging.Append(&e.taken)
	l.logging.Push(e)
	l.mu.Unlock()
	l.queue.Queue(l.work)
	return st, dm.EndDone
}

// overwrittenLocked logs the entries that wait for a flush and that e, a write with FUA,
// has overwritten, and those that these have overwritten. If they came after e in the
// log, a replay would undo e.
func (l *logWrites) overwrittenLocked(e *entry) {
	over := []*entry{e} // newest first
	over = takeOverwritten(&l.unflushed, over)
	for _, f := range slices.Backward(l.flushing) {
		over = takeOverwritten(&f.taken, over)
	}
	for _, o := range slices.Backward(over[1:]) {
		l.logging.Push(o)
	}
}

// takeOverwritten moves the entries that one of over has overwritten from waiting to
// over.
func takeOverwritten(waiting *entries, over []*entry) []*entry {
	all := waiting.Take()
	var old []*entry
	for o := all.Pop(); o != nil; o = all.Pop() {
		old = append(old, o)
	}
	for i, o := range slices.Backward(old) {
		if slices.ContainsFunc(over, func(n *entry) bool { return o.sector < n.sector+n.blocks && n.sector < o.sector+o.blocks }) {
			over, old[i] = append(over, o), nil
		}
	}
	for _, o := range old {
		if o != nil {
			waiting.Push(o)
		}
	}
	return over
}

// Close logs the entries that are left.
func (l *logWrites) Close() {
	l.mu.Lock()
	l.logging.Append(&l.unflushed)
	l.mu.Unlock()
	l.mark("dm-log-writes-end")
	l.queue.Close()
}

// mark logs as much of a text as fits into a block.
func (l *logWrites) mark(text string) {
	text = text[:min(len(text), int(l.block)-headerSize-1)]
	e := &entry{header: header{flags: flagMark, dataLen: uint64(len(text))}, data: make([]byte, l.block)}
	copy(e.data[headerSize:], text)
	l.mu.Lock()
	l.logging.Push(e)
	l.mu.Unlock()
	l.queue.Queue(l.work)
}

func (l *logWrites) Message(args []string) (string, error) {
	if len(args) != 2 {
		return "", dm.Errorf(syscall.EINVAL, "Invalid log-writes message arguments, expect 2 arguments, got %d", len(args))
	}
	if !strings.EqualFold(args[0], "mark") {
		return "", dm.Errorf(syscall.EINVAL, "Unrecognised log writes target message received: %s", args[0])
	}
	l.mark(args[1])
	return "", nil
}

func (l *logWrites) Status(kind dm.StatusKind, _ dm.StatusFlags) string {
	if kind == dm.TableText {
		return (&Line{l.dev.Name(), l.logdev.Name()}).String()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return (&Status{Entries: l.logged, Sector: l.next - 1, Disabled: !l.enabled.Load()}).String()
}

// Areas leaves the log out, as the kernel does.
func (l *logWrites) Areas() []dm.Area { return []dm.Area{{Dev: l.dev, Len: l.target.Len}} }

func (l *logWrites) Hint(h *blk.Limits) {
	under := l.dev.Limits()
	if l.noDiscard {
		h.MaxDiscard, h.DiscardGranularity = maxDiscard, l.block
	}
	h.LogicalBlock, h.PhysicalBlock, h.MinIO = under.LogicalBlock, under.PhysicalBlock, under.PhysicalBlock
	h.StableWrites = true // the data is read twice: for the log and for the device
}

const maxDiscard = 1<<23 - 1 // sectors
