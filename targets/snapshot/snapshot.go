package snapshot

import (
	"math/bits"
	"sync"
	"sync/atomic"

	"udm/blk"
	"udm/dm"
	"udm/env"
	"udm/targets/internal/kcopyd"
)

// snapshot is a constructed target "snapshot", and most of "snapshot-merge" (the
// kernel's struct dm_snapshot).
type snapshot struct {
	// Set by the constructor, then read only.
	target      *dm.Target
	origin, cow *dm.Dev
	originDev   *kcopyd.Dev
	cowDev      *kcopyd.Dev
	kc          *kcopyd.Client
	registry    *registry
	group       *group // the snapshots of the same origin
	overflow    bool   // PO: a full store stops writes instead of dropping the snapshot
	zeroesCow   bool   // discard_zeroes_cow
	passdown    bool   // discard_passdown_origin
	merge       *merge // nil: no snapshot-merge
	end         uint64 // end of the target in the mapped device
	originEnd   uint64 // size of the origin when it was opened

	flags atomic.Uint32
	body  atomic.Pointer[body] // changes hands in a handover
	size  uint64               // guarded by registry.mu; chunk size by which the group orders it

	_ [64]byte // every write that creates an exception writes to what follows

	pending   pendingTable
	tracked   tracked
	inFlight  kcopyd.InFlight // pending exceptions, and the copies and writes of whole chunks that they use
	settling  atomic.Bool     // wake idle
	idle      env.Wait
	throttled throttled
	space     shortage

	mu      sync.Mutex
	waiting []func() // guarded by mu; to call once the store is durable

	hook func(point) // for tests: called at points of possible races
}

// body is the exceptions of a snapshot. A handover passes it to the next table. A
// body itself never changes.
type body struct {
	store    store
	complete *table
	shift    uint
	mask     uint64 // chunk size - 1; both are 0 before a handover
}

func newBody(s store, t *table) *body {
	size := s.chunkSize()
	return &body{s, t, uint(bits.TrailingZeros64(size)), size - 1}
}

// The flags of a snapshot, which every bio checks.
const (
	flagValid       = 1 << iota // neither dropped nor handed over
	flagActive                  // resumed once: origin writes create exceptions
	flagOverflowed              // full: writes fail
	flagMergeFailed             // the merge stopped at an error
	flagDropping                // not valid any more, but the store is not marked yet
	flagUnflushed               // a power cut could lose what was read from the store
	flagFlushing                // it is being flushed, or what waited for that is not yet mapped
	flagWaiting                 // waits for a handover of its exceptions
	flagNoSpace                 // space below did not come in time: writes that need it fail
	flagDoubt                   // some exceptions may or may not be in the store
	flagClosing                 // pending work may be dropped
)

// point is a point at which a test may stop a thread.
type point uint8

const (
	pointAllocate point = iota // the chunk had no exception; nothing is locked
	pointTracked               // a read is tracked, but has not checked again
	pointHold                  // a bio is to be held back; nothing is locked
	pointCounted               // it is counted, but has not checked again; throttled.mu is locked
	pointPlaced                // an exception has its place, but is not in the table; its slot is locked
)

func (s *snapshot) at(p point) {
	if s.hook != nil {
		s.hook(p)
	}
}

func (s *snapshot) has(flag uint32) bool { return s.flags.Load()&flag != 0 }

// set changes flags atomically and returns the old ones.
func (s *snapshot) set(on, off uint32) (before uint32) {
	for {
		before = s.flags.Load()
		if s.flags.CompareAndSwap(before, before&^off|on) {
			return before
		}
	}
}

func (s *snapshot) Map(c *dm.Clone) dm.Outcome {
	if c.Op >= blk.Flush {
		return s.mapOther(c)
	}
	b := s.body.Load()
	if f := s.flags.Load(); f&(flagValid|flagOverflowed|flagDoubt) != flagValid && s.refuses(c, b, f) {
		return dm.Kill
	}
	if c.Sector&b.mask+c.Sectors > b.mask+1 {
		return s.mapRun(c, b)
	}
	chunk := c.Sector >> b.shift
	if where, ok := b.complete.lookup(chunk); ok {
		b.remap(c, where)
		c.Dev = s.cow.Device
		return dm.Remapped
	}
	if c.Op == blk.Write {
		return s.writeNew(c, b, chunk)
	}
	return s.readOrigin(c, b, chunk, 1)
}

// refuses reports whether c fails when the flags are f.
func (s *snapshot) refuses(c *dm.Clone, b *body, f uint32) bool {
	switch {
	case f&flagValid == 0:
		return true
	case c.Op != blk.Write:
		return false
	}
	return f&flagOverflowed != 0 || f&flagDoubt != 0 && b.inDoubt(c.Sector>>b.shift, b.chunks(c))
}

// inDoubt reports whether the store may have lost the exception of one of the n
// chunks from first on. Data written to them now could be lost, too.
func (b *body) inDoubt(first, n uint64) bool {
	m := b.store.merger()
	if m == nil {
		return false
	}
	d := m.doubt()
	return d.n > 0 && first <= d.old && d.old < first+n+d.n-1
}

func (b *body) remap(c *dm.Clone, where uint64) {
	c.Sector = where<<b.shift | c.Sector&b.mask
}

func (s *snapshot) mapOther(c *dm.Clone) dm.Outcome {
	if c.Op == blk.Discard {
		return s.mapDiscard(c)
	}
	c.Dev = s.cow.Device
	return dm.Remapped
}

// readOrigin sends a read of up to n chunks without exceptions to the origin. The
// read is tracked first: whoever adds an exception later waits for it, and one added
// earlier is seen now.
func (s *snapshot) readOrigin(c *dm.Clone, b *body, chunk, n uint64) dm.Outcome {
	io := c.PerIO.(*perIO)
	s.tracked.add(io, chunk, n)
	s.at(pointTracked)
	where, n, ok := b.complete.lookupRun(chunk, n)
	if ok {
		s.tracked.remove(io)
		return s.toCow(c, b, where, n)
	}
	b.accept(c, n)
	c.Dev = s.origin.Device
	return dm.Remapped
}

// NewPerIO creates the data of one clone.
func (s *snapshot) NewPerIO() any { return &perIO{} }

// EndIO releases what waits for a tracked bio. A read of the origin during which the
// snapshot became invalid may have seen later writes, so it fails. (In the kernel it
// succeeds.)
func (s *snapshot) EndIO(c *dm.Clone, st blk.Status) (blk.Status, dm.EndOutcome) {
	io := c.PerIO.(*perIO)
	if !io.tracked && st != blk.NoSpace {
		return st, dm.EndDone
	}
	if io.tracked {
		s.tracked.remove(io)
	}
	switch {
	case st == blk.NoSpace && s.waitForSpace(c):
		return st, dm.EndIncomplete
	case c.Op == blk.Read && st == blk.OK && !s.has(flagValid):
		st = blk.IOErr
	}
	return st, dm.EndDone
}

// writeNew maps a write to a chunk that had no exception when it was checked.
func (s *snapshot) writeNew(c *dm.Clone, b *body, chunk uint64) dm.Outcome {
	if refused(c) || s.noSpace(c) || s.throttle(c) {
		return dm.Submitted
	}
	s.at(pointAllocate)
	pe, sl, found := s.lockPending(b, chunk, flagValid)
	return s.joinIn(c, b, pe, sl, found)
}

// joinIn maps a write to one chunk after lockPending.
func (s *snapshot) joinIn(c *dm.Clone, b *body, pe *pending, sl *slot, found bool) dm.Outcome {
	switch {
	case pe != nil:
		s.join(c, b, pe, sl)
		return dm.Submitted
	case found:
		return s.Map(c)
	case s.has(flagValid):
		s.full()
	}
	return dm.Kill
}

// refused fails a bio that would have to wait but has NoWait.
func refused(c *dm.Clone) bool {
	if c.Flags&blk.NoWait == 0 {
		return false
	}
	c.Complete(blk.WouldBlock)
	return true
}

// lockPending finds or creates the pending exception of a chunk and returns it with
// its slot locked. If it returns none, nothing is locked: either the chunk has a
// complete exception (found), or the store is full or a needed flag is not set.
func (s *snapshot) lockPending(b *body, chunk uint64, needs uint32) (pe *pending, sl *slot, found bool) {
	sl = s.pending.slot(chunk)
	sl.mu.Lock()
	if pe = sl.lookupLocked(chunk); pe != nil {
		return pe, sl, false
	}
	// Adding an exception removes the pending one afterwards, so this look-up cannot
	// miss one added since the first check.
	if _, found = b.complete.lookup(chunk); !found && s.flags.Load()&needs == needs {
		pe = s.makeLocked(sl, b, chunk, anywhere)
	}
	if pe == nil {
		sl.mu.Unlock()
	}
	return pe, sl, found
}

// join queues a write in pe. If the write covers the chunk and is the first, it
// replaces the copy. It unlocks the slot.
func (s *snapshot) join(c *dm.Clone, b *body, pe *pending, sl *slot) {
	b.remap(c, pe.new)
	c.Dev = s.cow.Device
	first := !pe.started
	pe.started = true
	if first && c.Sectors == b.mask+1 && c.Sector&b.mask == 0 {
		f := s.newFull(c, pe)
		pe.full = f
		sl.mu.Unlock()
		f.start(1)
		return
	}
	pe.writes.Push(c)
	sl.mu.Unlock()
	if first {
		pe.startCopy(b)
	}
}

// full handles a store without room for a write to the snapshot. With overflow
// support reads continue.
func (s *snapshot) full() {
	if !s.overflow {
		s.invalidate("its store is full")
	} else if s.set(flagOverflowed, 0)&flagOverflowed == 0 {
		s.target.Log().Error("snapshot's store is full: writes fail from now on")
	}
}
