// Package integrity is the target "integrity": each block has a tag, its hash, which is
// checked when the block is read (drivers/md/dm-integrity.c).
//
// The manual is [Type]'s Doc; docs/formats/integrity.md says what is on disk, layout.go
// where. There are the kernel's modes J (data and tags are journaled), D (written
// directly; after a power cut tags may not fit the data) and R (reading only).
//
// # Life of a bio
//
// Bios are cut at every 128 KiB or less, so that a piece lies in one area and fits into a
// section of the journal. A worker carries out one piece after the other and waits for
// the disk:
//
//	read:     has the range ─ reads data and tags, checks ─ what the journal has is taken
//	          from its memory
//	write, J: has the range and room in the journal ─ copied into its memory ─ done
//	write, D: has the range ─ data to disk, tags into the cache ─ done
//	flush:    queue committer: J: the journal is committed; D: tags and disk are flushed
//
// A range of sectors is had by one piece at a time, so that data and tags fit each other.
//
// # The journal
//
// Its steps, and what is there after a power cut in the middle of each:
//
//  1. Blocks are in memory only: none of them is promised. A power cut loses them.
//  2. commitAll, on the queue committer, writes their sections and flushes. Cut off, a
//     section is not whole, and replay leaves it and what is behind it out.
//  3. writeBack, on the queue writer, writes blocks to their places, then tags, and
//     flushes. Cut off, replay does it again.
//  4. The sections are free: the next commit of them is step 2. Replay writes what is in
//     the ring once more, from the oldest section on, so the newest block wins.
//
// After a suspend nothing is in the journal, on disk as well.
//
// Lock order: the locks of waits, then integrity.mu or tags.mu, which are taken in
// conditions of waits and around env.Queue's own lock.
package integrity

import (
	"errors"
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

// Type is the target type, to be given to dm.NewControl.
func Type() *dm.Type {
	return &dm.Type{Name: "integrity", Version: [3]uint32{1, 10, 0}, New: construct, Parse: dm.Parser(ParseLine), ParseStatus: dm.StatusParser(ParseStatus), Doc: doc}
}

type integrity struct {
	target       *dm.Target
	env          env.Env
	line         *Line
	dev, meta    *dm.Dev // meta has superblock, journal and tags
	start        uint64  // of the superblock
	layout       *layout
	newHash      func() hash.Hash
	pieceSectors uint64
	threshold    uint64 // free entries of the journal, below which it is written back
	tags         tags
	queue        parallel.Queue
	mismatches   atomic.Uint64
	ready        bool // the journal was replayed; only for suspends and resumes

	committer, writer env.Queue
	commitWork        env.Work
	writeWork         env.Work
	recalcWork        env.Work

	wait env.Wait // for spans, room in the journal, and copies into it

	mu      sync.Mutex
	sb      *Superblock // RecalcSector and Flags are guarded by mu
	spans   []span      // guarded by mu; had by somebody
	stopped bool        // guarded by mu; nothing is recalculated
	flushes dm.CloneList
	journal *journal // nil: mode D or R
}

const (
	maxPiece = 256 // sectors
	workers  = 16
)

func construct(t *dm.Target, args []string) (dm.Mapper, error) {
	if len(args) <= 4 {
		return nil, dm.Errorf(syscall.EINVAL, "Invalid argument count")
	}
	dev, err := t.Open(args[0], t.Writable())
	if err != nil {
		return nil, dm.Because(err, "Device lookup failed")
	}
	l, wrong := parseLine(args)
	meta := dev
	if l != nil && l.MetaDevice != "" {
		if meta, err = t.Open(l.MetaDevice, t.Writable()); err != nil {
			return nil, dm.Because(err, "Device lookup failed")
		}
	}
	if wrong != nil {
		return nil, wrong
	}
	g := &integrity{target: t, env: t.Env(), line: l, dev: dev, meta: meta, start: l.Start}
	_, key, _ := parseKeyed(l.Hash+":"+l.Key, "") // ParseLine has
	if g.newHash, err = newHash(l.Hash, key); err != nil {
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

// setUp starts what works on clones.
func (g *integrity) setUp() {
	t := g.target
	g.wait = g.env.NewWait()
	limit := uint64(maxPiece)
	if g.line.Mode == "J" {
		limit = min(limit, 1<<(bits.Len64(g.layout.sectionEntries)-1)<<g.layout.logBlock)
	}
	if !g.layout.meta {
		limit = min(limit, 1<<g.layout.logInterleave)
	}
	g.pieceSectors = limit
	t.MaxIOLen, t.NumFlush, t.FlushSupported = limit, 1, true
	if g.line.AllowDiscards {
		t.NumDiscard = 1
	}
	g.threshold = (g.layout.entries()*uint64(100-min(100, g.line.Watermark)) + 50) / 100
	g.tags.init(g.env, g.meta, g.start+g.layout.initial, 1<<min(3, g.layout.logBuffer))
	if g.line.Mode == "J" {
		g.journal = newJournal(g)
	}
	g.committer, g.writer = g.env.NewQueue("dm-integrity-commit"), g.env.NewQueue("dm-integrity-writer")
	g.commitWork.Fn = g.commit
	g.writeWork.Fn = func() { g.journal.writeBack() }
	g.recalcWork.Fn = g.recalculate
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

// flushLater completes a clone once all that was written is durable.
func (g *integrity) flushLater(c *dm.Clone) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.flushes.Push(c)
	g.committer.Queue(&g.commitWork)
}

// commit is the work of the queue committer.
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
		err = g.flushPlaces()
	}
	for c := flushes.Pop(); c != nil; c = flushes.Pop() {
		c.Complete(blk.StatusOf(err))
	}
}

// armCommit has what is journaled committed before long.
func (g *integrity) armCommit() {
	g.committer.QueueAfter(&g.commitWork, time.Duration(g.line.CommitTime)*time.Millisecond)
}

// place is the sector of the data's device where a sector of data lies.
func (g *integrity) place(sector uint64) uint64 {
	if g.layout.meta {
		return sector
	}
	return g.start + g.layout.data(sector)
}

// uncheckedFrom is the first sector whose tag may be none yet. Called with mu held.
func (g *integrity) uncheckedFrom() uint64 {
	if g.sb.Flags&flagRecalculating != 0 {
		return g.sb.RecalcSector
	}
	return g.layout.provided
}

// mismatch counts a block whose tag is wrong.
func (g *integrity) mismatch(sector uint64) {
	if n := g.mismatches.Add(1); n <= 100 {
		g.target.Log().Error("integrity: a block is not what its tag says", "sector", sector)
	}
}

// Preresume makes ready what is on disk.
func (g *integrity) Preresume() error {
	if g.ready || g.line.Mode == "R" {
		return nil
	}
	if err := g.prepare(); err != nil {
		return dm.Because(dm.Errorf(syscall.EIO, "%v", err), "the integrity device cannot be resumed")
	}
	g.ready = true
	return nil
}

// Resume goes on with what was interrupted.
func (g *integrity) Resume() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.stopped = g.line.Mode == "R"
	if !g.stopped && g.sb.Flags&flagRecalculating != 0 && g.sb.RecalcSector < g.layout.provided {
		g.writer.Queue(&g.recalcWork)
	}
}

// Postsuspend has everything at its place.
func (g *integrity) Postsuspend() {
	g.mu.Lock()
	g.stopped = true
	g.mu.Unlock()
	if g.line.Mode == "R" {
		return
	}
	g.committer.Cancel(&g.commitWork)
	g.committer.Flush()
	g.writer.Flush()
	var err error
	if g.journal != nil {
		err = g.journal.commitAll()
		g.writer.Flush()
		if err == nil {
			g.journal.writeBack()
			err = g.journal.settle()
		}
	} else {
		err = g.flushPlaces()
	}
	if err == nil && g.recalculating() {
		err = g.writeSuperblock()
	}
	if err != nil {
		g.target.Log().Error("integrity: the device was suspended, and not all is at its place", "error", err)
	}
}

func (g *integrity) recalculating() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.sb.Flags&flagRecalculating != 0
}

// Close has nothing to wait for but the works themselves.
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

// Hint asks for whole blocks. What is written below is a copy.
func (g *integrity) Hint(h *blk.Limits) {
	size := uint32(g.line.BlockSize)
	h.LogicalBlock = max(h.LogicalBlock, size)
	h.PhysicalBlock = max(h.PhysicalBlock, size)
	h.MinIO = max(h.MinIO, size)
	h.StableWrites = false
}

var errDirtyBitmap = errors.New("the disk was used in bitmap mode and not closed; open it with a kernel in mode B first")

func geometryError(reason string) error { return dm.Errorf(syscall.EINVAL, "%s", reason) }
