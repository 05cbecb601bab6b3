// Package era is the target "era": it passes I/O on, and keeps in which era each block
// was last written (drivers/md/dm-era-target.c). The manual is [Type]'s Doc; package
// erameta is the metadata.
//
// # Life of a write
//
// Marks are the blocks of the running era's writeset that are durable in the metadata.
//
//	Map ─ its blocks have marks ──► remapped
//	 └──► waiting ─► pass: its bits are set in the metadata, which are committed once
//	                 for all that wait ─► its blocks get marks ─► issued
//
// So a block is in the writeset before it is written, also after a power cut; it may
// be in there without having been written. Reads and flushes are remapped.
//
// # A new era
//
// A checkpoint archives the writeset, commits, and replaces the marks by none. A write
// that has looked at the old marks may still be under way to the origin then. Every
// write therefore enters a deferred set before it looks at the marks, and leaves it at
// its end; the message waits until those have left that entered before the marks were
// replaced. (The kernel does not wait: there such a write may come after what a user
// reads at the checkpoint, and be told of as earlier.)
//
// # Failures
//
// An error of the metadata fails the writes that waited for it. The transaction is
// aborted: the metadata are read again, and marks begin empty; bits that were set
// before are found on disk. If that fails too, the status is Error, and only writes to
// blocks with marks go on. A metadata device without space (a sparse file on a full file
// system) fails such writes with NoSpace; nothing is aborted.
//
// The owner is one queue, whose works make all calls of the metadata. Lock order: mu is a
// leaf.
package era

import (
	"sync"
	"sync/atomic"

	"udm/blk"
	"udm/dm"
	"udm/env"
	"udm/pdata"
	"udm/targets/era/erameta"
	"udm/targets/internal/deferredset"
	"udm/targets/internal/segment"
)

// Type is the target type, to be given to dm.NewControl.
func Type() *dm.Type {
	return &dm.Type{Name: "era", Version: [3]uint32{1, 0, 0}, New: construct, Parse: dm.Parser(ParseLine), ParseStatus: dm.StatusParser(ParseStatus), Doc: doc}
}

type era struct {
	target   *dm.Target
	metadata *dm.Dev
	origin   *dm.Dev
	block    uint64 // sectors
	blocks   uint32
	marks    atomic.Pointer[marks] // of the running era
	writes   *deferredset.Set      // writes under way
	wait     env.Wait

	queue env.Queue // the owner
	work  *env.Work // pass

	mu      sync.Mutex
	waiting dm.CloneList // guarded by mu; writes to blocks without marks

	// The owner's.
	md        *erameta.Metadata
	running   bool // since resume, until suspend
	digesting bool // there may be archived writesets
	scratch   []uint32
}

func construct(t *dm.Target, args []string) (dm.Mapper, error) {
	if len(args) != 3 {
		return nil, invalid("Invalid argument count")
	}
	e := &era{target: t}
	var err error
	if e.metadata, err = t.Open(args[0], true); err != nil {
		return nil, dm.Because(invalid(err.Error()), "Error opening metadata device")
	}
	if e.origin, err = t.Open(args[1], true); err != nil {
		return nil, dm.Because(invalid(err.Error()), "Error opening data device")
	}
	l, err := ParseLine(args)
	if err != nil {
		return nil, err
	}
	if t.Begin != 0 {
		return nil, invalid("era maps a device from sector 0 on; put a linear device on it")
	}
	e.block = uint64(l.BlockSectors)
	if e.md, err = erameta.Open(t.Env(), e.metadata, erameta.Options{BlockSize: l.BlockSectors, Format: true}); err != nil {
		return nil, dm.Because(dm.Errorf(pdata.SuperErrno(t.Env(), e.metadata, err), "%v", err), "Error reading metadata")
	}
	e.setUp()
	return e, nil
}

func (e *era) setUp() {
	t := e.target
	t.MaxIOLen, t.NumFlush, t.FlushSupported, t.NumDiscard = e.block, 1, true, 1
	e.blocks = uint32(min((t.Len+e.block-1)/e.block, erameta.MaxBlocks+1))
	e.writes, e.wait = deferredset.New(), t.Env().NewWait()
	e.marks.Store(&marks{})
	e.queue, e.work = t.Env().NewQueue("dm-era"), env.NewWork(e.pass)
}

// write is the target's data for a clone: its entry in era.writes.
type write struct {
	shard deferredset.Shard
	entry deferredset.Entry
	in    bool
}

func (e *era) NewPerIO() any { return &write{shard: e.writes.Shard()} }

func (e *era) Map(c *dm.Clone) dm.Outcome {
	c.SetDev(e.origin)
	w := c.PerIO.(*write)
	if w.in = c.Op != blk.Read && c.Op != blk.Flush; !w.in {
		return dm.Remapped
	}
	w.entry = e.writes.Enter(&w.shard) // before the marks are looked at
	if first, last := e.blocksOf(c); e.marks.Load().have(first, last) {
		return dm.Remapped
	}
	e.mu.Lock()
	e.waiting.Push(c)
	e.mu.Unlock()
	e.queue.Queue(e.work)
	return dm.Submitted
}

// blocksOf returns the first and the last block of a write. A discard may have several.
func (e *era) blocksOf(c *dm.Clone) (first, last uint32) {
	return uint32(c.Sector / e.block), uint32((c.Sector + max(c.Sectors, 1) - 1) / e.block)
}

func (e *era) EndIO(c *dm.Clone, st blk.Status) (blk.Status, dm.EndOutcome) {
	if w := c.PerIO.(*write); w.in {
		w.in = false
		e.writes.Leave(w.entry)
	}
	return st, dm.EndDone
}

// Close waits for the owner.
func (e *era) Close() { e.queue.Close() }

func (e *era) Status(kind dm.StatusKind, _ dm.StatusFlags) string {
	if kind == dm.TableText {
		return (&Line{e.metadata.Name(), e.origin.Name(), uint32(e.block)}).String()
	}
	var s Status
	e.call(func() {
		if s.Failed = e.md.Failed(); !s.Failed {
			s.Used, s.Total = e.md.Space()
			s.Era, s.MetadataSnap = e.md.Era(), e.md.Held()
			_ = e.commit() // a failure shows the next time
		}
	})
	return s.String()
}

func (e *era) Areas() []dm.Area { return []dm.Area{{Dev: e.origin, Len: e.origin.Limits().Size}} }

// maxMarked is how many blocks one discard or write-zeroes may have: they are marked in
// one pass of the owner.
const maxMarked = 1 << 16

// Hint makes whole blocks the preferred I/O size, unless the origin prefers a multiple
// of them.
func (e *era) Hint(l *blk.Limits) {
	l.MaxDiscard = min(l.MaxDiscard, maxMarked*e.block)
	l.MaxWriteZeroes = min(l.MaxWriteZeroes, maxMarked*e.block)
	if bs := uint32(e.block * blk.SectorSize); l.OptIO < bs || l.OptIO%bs != 0 {
		l.MinIO = max(l.LogicalBlock, l.PhysicalBlock)
		l.OptIO = bs
	}
}

// Extents is the map of the origin.
func (e *era) Extents(offset, sectors uint64) []blk.Extent {
	s := segment.Segment{Dev: e.origin}
	return s.Extents(offset, sectors)
}
