// Package integrity implements the target "integrity": each block has a tag, its
// checksum or MAC, which is verified when the block is read (drivers/md/dm-integrity.c).
//
// [Type]'s Doc is the manual, docs/formats/integrity.md describes the disk format, and
// layout.go computes positions. The modes are the kernel's: J (data and tags are journaled),
// B (they are written directly, and a bitmap records where, so that only those tags are
// computed again after a power cut), D (they are written directly, and may not match after a
// power cut) and R (recovery: read-only, without journal or bitmap).
//
// # Life of a bio
//
// Bios are split at multiples of 128 KiB or less, so that each clone lies in one area and
// fits into a section of the journal. A worker processes one clone at a time and blocks
// during I/O:
//
//	read:     acquire the range ─ read data and tags, verify ─ blocks that are in the
//	          journal are copied from its memory instead
//	write, J: acquire the range and room in the journal ─ copy into the journal ─ done
//	write, B: acquire the range ─ make its bits durable ─ write data, update cached tags ─ done
//	write, D: acquire the range ─ write data, update cached tags ─ done
//	flush:    on the queue committer; J: commit the journal; B, D: write tags, flush disks
//
// Only one clone at a time owns a range of sectors, so that data and tags stay
// consistent.
//
// # The journal
//
// A journaled write goes through these steps. Each item says what a power cut during the
// step leaves:
//
//  1. The blocks are in memory only and not durable yet. A power cut loses them.
//  2. commitAll, on the queue committer, writes their sections and flushes. An interrupted
//     commit leaves an incomplete section; replay ignores it and the sections after it.
//  3. writeBack, on the queue writer, writes the blocks and then the tags to their final
//     locations, and flushes. If it is interrupted, replay repeats it.
//  4. The sections are free, and step 2 will reuse them. Replay writes all sections that
//     are still in the ring again, oldest first, so the newest version of a block wins.
//
// A suspend empties the journal, also on disk.
//
// # The bitmap
//
// In mode B, a flag of the superblock says that the area of the journal holds a bitmap
// instead. The flag is set when the device is resumed, and cleared when it is suspended,
// after everything was flushed and an empty journal was written. If the flag is set when
// the device is resumed, the power was cut: mode B then recalculates the tags of the regions
// whose bits are set, and any other mode those of all regions. Each item says what a power
// cut during the step leaves:
//
//  1. The bit of a region is set on disk before its first write. Only this region is
//     recalculated.
//  2. Data and tags are written, in any order. They may not match, and are recalculated.
//  3. After bitmap_flush_interval, no writes are in flight, everything is flushed, and then
//     the bits are cleared. Bits that are still set cost time only.
//
// Lock order: the locks of env.Wait, then integrity.mu or tags.mu, which are taken inside
// conditions of waits, then the lock of env.Queue.
package integrity

import (
	"hash"
	"math/bits"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"udm/blk"
	"udm/dm"
	"udm/env"
	"udm/targets/internal/parallel"
)

// Type returns the target type for dm.NewControl.
func Type() *dm.Type {
	return &dm.Type{Name: "integrity", Version: [3]uint32{1, 10, 0}, New: construct, Parse: dm.Parser(ParseLine), ParseStatus: dm.StatusParser(ParseStatus), Doc: doc}
}

type integrity struct {
	target       *dm.Target
	env          env.Env
	line         *Line
	dev, meta    *dm.Dev // meta holds superblock, journal and tags; may be dev
	start        uint64  // sector of the superblock
	layout       *layout
	newHash      func() hash.Hash // nil: the user of the device supplies the tags
	seal         seal             // of the journal
	maxIOSectors uint64           // the boundary at which bios are split
	threshold    uint64           // the journal is written back when it has fewer free entries
	tags         tags
	queue        parallel.Queue
	mismatches   atomic.Uint64
	ready        bool // the disk was prepared; used only by suspend and resume

	committer, writer env.Queue
	commitWork        env.Work
	writeWork         env.Work
	recalcWork        env.Work
	bitmapWork        env.Work

	wait env.Wait // for spans, room in the journal, and copies into it

	mu      sync.Mutex
	sb      *Superblock  // RecalcSector and Flags are guarded by mu
	spans   []span       // guarded by mu; acquired
	stopped bool         // guarded by mu; recalculation is stopped
	flushes dm.CloneList // guarded by mu; completed by the next commit
	journal *journal     // nil unless the mode is J
	bitmap  *bitmap      // nil unless the mode is B
	all     bool         // guarded by mu; a flush of the bitmap has or waits for all sectors
}

const (
	maxIO   = 256 // sectors
	workers = 16
)

func construct(t *dm.Target, args []string) (dm.Mapper, error) {
	if len(args) <= 4 {
		return nil, dm.Errorf(syscall.EINVAL, "Invalid argument count")
	}
	dev, err := t.Open(args[0], t.Writable())
	if err != nil {
		return nil, dm.Because(err, "Device lookup failed")
	}
	l, lineErr := parseLine(args)
	meta := dev
	if l != nil && l.MetaDevice != "" {
		if meta, err = t.Open(l.MetaDevice, t.Writable()); err != nil {
			return nil, dm.Because(err, "Device lookup failed")
		}
	}
	if lineErr != nil {
		return nil, lineErr
	}
	g := &integrity{target: t, env: t.Env(), line: l, dev: dev, meta: meta, start: l.Start}
	if g.newHash, err = l.newHash(); err != nil {
		return nil, err
	}
	if l.Mode != "R" && !t.Writable() {
		return nil, dm.Errorf(syscall.EACCES, "the table is read-only; use mode R")
	}
	if err := g.load(); err != nil {
		return nil, err
	}
	g.setUp()
	return g, nil
}

// setUp sets the limits of clones, and starts the caches, queues and workers.
func (g *integrity) setUp() {
	t := g.target
	g.wait = g.env.NewWait()
	limit := uint64(maxIO)
	if g.line.Mode == "J" {
		limit = min(limit, 1<<(bits.Len64(g.layout.sectionEntries)-1)<<g.layout.logBlock)
	}
	if !g.layout.meta {
		limit = min(limit, 1<<g.layout.logInterleave)
	}
	g.maxIOSectors = limit
	t.MaxIOLen, t.NumFlush, t.FlushSupported = limit, 1, true
	if g.line.AllowDiscards {
		t.NumDiscard = 1
	}
	g.threshold = (g.layout.entries()*uint64(100-min(100, g.line.Watermark)) + 50) / 100
	g.tags.init(g.env, g.meta, g.start+g.layout.initial, 1<<min(3, g.layout.logBuffer))
	if g.line.Mode == "J" {
		g.journal = newJournal(g)
	}
	if g.line.Mode == "B" {
		g.bitmap = newBitmap(g)
	}
	g.committer, g.writer = g.env.NewQueue("dm-integrity-commit"), g.env.NewQueue("dm-integrity-writer")
	g.commitWork.Fn = g.commit
	g.writeWork.Fn = func() { g.journal.writeBack() }
	g.recalcWork.Fn = g.recalculate
	g.bitmapWork.Fn = func() { g.bitmap.flush() }
	g.stopped = true
	g.queue.Init(g.env, "dm-integrity", workers, func() func(*dm.Clone) { return newWorker(g).work })
}

func (g *integrity) Map(c *dm.Clone) dm.Outcome {
	if c.Op == blk.Flush || c.Flags&blk.Preflush != 0 && c.Sectors == 0 {
		g.flushLater(c)
		return dm.Submitted
	}
	offset := c.Offset()
	if offset+c.Sectors > g.layout.provided || (offset|c.Sectors)%g.layout.blockSectors != 0 || g.line.Mode == "R" && c.Op != blk.Read {
		return dm.Kill
	}
	g.queue.Push(c)
	return dm.Submitted
}

// flushLater completes a clone after all writes completed so far are durable.
func (g *integrity) flushLater(c *dm.Clone) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.flushes.Push(c)
	g.committer.Queue(&g.commitWork)
}

// commit makes completed writes durable, and completes the clones of flushLater. It runs
// on the queue committer.
func (g *integrity) commit() {
	g.mu.Lock()
	flushes := g.flushes
	g.flushes = dm.CloneList{}
	g.mu.Unlock()
	var err error
	switch {
	case g.journal != nil:
		err = g.journal.commitAll()
	case g.line.Mode != "R":
		err = g.flushDevices()
	}
	for c := flushes.Pop(); c != nil; c = flushes.Pop() {
		c.Complete(blk.StatusOf(err))
	}
}

// armCommit schedules a commit after the commit time.
func (g *integrity) armCommit() {
	g.committer.QueueAfter(&g.commitWork, time.Duration(g.line.CommitTime)*time.Millisecond)
}

// dataSector returns the position of a sector of data on dev.
func (g *integrity) dataSector(sector uint64) uint64 {
	if g.layout.meta {
		return sector
	}
	return g.start + g.layout.data(sector)
}

// tagged reports whether the tags of all blocks of a span were computed. Called with mu held.
func (g *integrity) tagged(s span) bool {
	if g.bitmap != nil {
		return !g.bitmap.missing(s)
	}
	return s.end() <= g.unverifiedFrom()
}

// unverifiedFrom returns the first sector whose tag may not be computed yet. Called with
// mu held.
func (g *integrity) unverifiedFrom() uint64 {
	if g.sb.Flags&flagRecalculating != 0 {
		return g.sb.RecalcSector
	}
	return g.layout.provided
}

// mismatch counts a block that does not match its tag, and logs the first 100.
func (g *integrity) mismatch(sector uint64) {
	if n := g.mismatches.Add(1); n <= 100 {
		g.target.Log().Error("integrity: a block does not match its tag", "sector", sector)
	}
}

// Preresume prepares the disk before the first I/O.
func (g *integrity) Preresume() error {
	if g.ready || g.line.Mode == "R" {
		return nil
	}
	if err := g.prepare(); err != nil {
		errno := syscall.EIO
		if blk.StatusOf(err) == blk.NoSpace {
			errno = syscall.ENOSPC
		}
		return dm.Because(dm.Errorf(errno, "%v", err), "cannot resume the integrity device")
	}
	g.ready = true
	return nil
}

// Resume continues an interrupted recalculation.
func (g *integrity) Resume() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.stopped = g.line.Mode == "R"
	if !g.stopped && g.sb.Flags&flagRecalculating != 0 && g.sb.RecalcSector < g.layout.provided {
		g.writer.Queue(&g.recalcWork)
	}
}

// Postsuspend writes everything to its final location and empties the journal.
func (g *integrity) Postsuspend() {
	g.mu.Lock()
	g.stopped = true
	g.mu.Unlock()
	if g.line.Mode == "R" {
		return
	}
	g.committer.Cancel(&g.commitWork)
	g.committer.Cancel(&g.bitmapWork)
	g.committer.Flush()
	g.writer.Flush()
	g.committer.Cancel(&g.bitmapWork) // queued meanwhile
	g.committer.Flush()
	err := g.settle()
	if err == nil && g.bitmap == nil && g.recalculating() {
		if err = g.flushDevices(); err == nil { // recalculated tags, too
			err = g.writeSuperblock()
		}
	}
	if err != nil {
		g.target.Log().Error("integrity: the device was suspended, but not all data were written", "error", err)
	}
}

// settle writes everything to its final location, and empties the journal or ends the bitmap. No
// works run.
func (g *integrity) settle() error {
	if g.journal != nil {
		err := g.journal.commitAll()
		g.writer.Flush()
		if err != nil {
			return err
		}
		g.journal.writeBack()
		return g.journal.writeEmpty()
	}
	err := g.flushDevices()
	if g.bitmap == nil || !g.ready {
		return err
	}
	g.ready = false // resume continues with what is on disk
	g.mu.Lock()
	g.bitmap.armed = false
	g.mu.Unlock()
	if err == nil {
		err = g.bitmap.leave()
	}
	return err
}

func (g *integrity) recalculating() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.sb.Flags&flagRecalculating != 0
}

func (g *integrity) Close() {
	g.queue.Close()
	g.committer.Close()
	g.writer.Close()
}

func (g *integrity) Status(kind dm.StatusKind, _ dm.StatusFlags) string {
	g.mu.Lock()
	flags, recalculated := g.sb.Flags, g.sb.RecalcSector
	g.mu.Unlock()
	if kind == dm.Info {
		return (&Status{g.mismatches.Load(), g.layout.provided, flags&flagRecalculating != 0, recalculated}).String()
	}
	l := *g.line
	l.Device = g.dev.Name()
	if l.MetaDevice != "" {
		l.MetaDevice = g.meta.Name()
	}
	l.Recalculate = flags&flagRecalculating != 0
	l.FixPadding, l.FixHMAC = flags&flagPadding != 0, flags&flagHMAC != 0
	l.JournalSectors = uint32(g.layout.initial - sbSectors)
	l.InterleaveSectors, l.BufferSectors = 1<<g.layout.logInterleave, 1<<g.layout.logBuffer
	l.SectorsPerBit = g.layout.blockSectors << g.layout.bitmapBit(g.line.SectorsPerBit)
	if n := g.layout.entries(); n > 0 {
		l.Watermark = uint32(((n-g.threshold)*100 + n/2) / n)
	}
	return l.String()
}

func (g *integrity) Areas() []dm.Area {
	if g.layout.meta {
		return []dm.Area{{Dev: g.dev, Len: g.target.Len}}
	}
	return []dm.Area{{Dev: g.dev, Start: g.start + g.layout.data(0), Len: g.target.Len}}
}

// Uncommitted reports whether blocks are only in the journal in memory, or in mode D perhaps
// tags in their buffers. In mode B, tags that are lost with the process are recalculated.
func (g *integrity) Uncommitted() bool {
	if g.journal == nil {
		return g.line.Mode == "D"
	}
	return g.journal.uncommittedBlocks()
}

// Hint makes clients send whole blocks. Writes are copied before tags are computed, so the
// data need not be stable.
func (g *integrity) Hint(h *blk.Limits) {
	if g.bitmap == nil {
		h.ProcessCache = true // the journal, or the tags, are written later
	}
	if g.newHash == nil {
		h.TagSize = uint32(g.layout.tagSize)
	}
	size := uint32(g.line.BlockSize)
	h.LogicalBlock = max(h.LogicalBlock, size)
	h.PhysicalBlock = max(h.PhysicalBlock, size)
	h.MinIO = max(h.MinIO, size)
	h.StableWrites = false
}

func geometryError(reason string) error { return dm.Errorf(syscall.EINVAL, "%s", reason) }
