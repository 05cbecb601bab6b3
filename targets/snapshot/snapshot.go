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

// snapshot is a constructed target "snapshot", and most of "snapshot-merge"
// (the kernel's struct dm_snapshot).
type snapshot struct {
	// Set by the constructor, then read only.
	target      *dm.Target
	origin, cow *dm.Dev
	originDev   *kcopyd.Dev
	cowDev      *kcopyd.Dev
	kc          *kcopyd.Client
	world       *world
	group       *group // the snapshots of the same origin
	overflow    bool   // PO: a full store stops writes instead of dropping the snapshot
	zeroesCow   bool   // discard_zeroes_cow
	passdown    bool   // discard_passdown_origin
	merge       *merge // nil: no snapshot-merge
	end         uint64 // sector behind the target in the mapped device
	originEnd   uint64 // size of the origin when it was opened

	flags atomic.Uint32
	body  atomic.Pointer[body] // changes hands in a handover

	_ [64]byte // what follows is written by every write that makes an exception

	pending   pendingTable
	tracked   tracked
	tally     kcopyd.Tally // of pending exceptions; used: copies, and writes of whole chunks
	settling  atomic.Bool  // idle is to be woken
	idle      env.Wait
	throttled throttled
	space     shortage

	mu      sync.Mutex
	dropped []func() // guarded by mu; to do once the store is marked invalid

	hook func(point) // for tests: called where others may come between
}

// body is the exceptions of a snapshot: what a handover gives to the next table.
// It never changes itself.
type body struct {
	store    store
	complete *table
	shift    uint
	mask     uint64 // chunk size - 1; 0 with shift 0 before a handover
}

func newBody(s store, t *table) *body {
	size := s.chunkSize()
	return &body{s, t, uint(bits.TrailingZeros64(size)), size - 1}
}

// The state of a snapshot that every bio looks at.
const (
	flagValid       = 1 << iota // neither dropped nor handed over
	flagActive                  // resumed once: origin writes make exceptions
	flagOverflowed              // full: no more writes
	flagMergeFailed             // the merge met an error and stopped
	flagDropping                // not valid any more, but the store is not told yet
	flagWaiting                 // gets its exceptions in a handover
	flagNoSpace                 // writes that need space below fail, as it did not come in time
	flagDoubt                   // nobody knows whether the store has some exceptions still
	flagClosing                 // what is under way may be left undone
)

// point is a place where a test may hold a thread up.
type point uint8

const (
	pointAllocate point = iota // the chunk had no exception; nothing is locked
	pointTracked               // a read is tracked; not looked again yet
	pointHold                  // a bio is to be held back; nothing is locked
	pointCounted               // it is counted, to be looked at once more; throttled.mu is locked
	pointPlaced                // an exception has its place, and is not in the table yet; its slot is locked
)

func (s *snapshot) at(p point) {
	if s.hook != nil {
		s.hook(p)
	}
}

func (s *snapshot) has(flag uint32) bool { return s.flags.Load()&flag != 0 }

// set changes flags in one step.
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

// refuses tells whether c fails in the state f.
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
// chunks from first on: what is written to them now would be lost with it.
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

// readOrigin sends a read of up to n chunks without exception to the origin. Once
// it is tracked, whoever adds an exception waits for it; one that was added
// before is seen now.
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

// NewPerIO makes the data of one clone.
func (s *snapshot) NewPerIO() any { return &perIO{} }

// EndIO lets those go on that wait for a tracked bio. A read that went to the
// origin while the snapshot was dropped may have seen what was written there
// after: it fails. (The kernel lets it pass.)
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

// writeNew maps a write to a chunk that had no exception a moment ago.
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

// refused ends a bio that would have to wait and must not.
func refused(c *dm.Clone) bool {
	if c.Flags&blk.NoWait == 0 {
		return false
	}
	c.Complete(blk.WouldBlock)
	return true
}

// lockPending finds or makes the pending exception of a chunk and returns it
// with its slot locked. Without one nothing is locked: found says that the chunk
// has its exception by now; otherwise the store is full, or the snapshot lacks
// one of the flags that it needs.
func (s *snapshot) lockPending(b *body, chunk uint64, needs uint32) (pe *pending, sl *slot, found bool) {
	sl = s.pending.slot(chunk)
	sl.mu.Lock()
	if pe = sl.lookupLocked(chunk); pe != nil {
		return pe, sl, false
	}
	// Who adds an exception takes its pending one out afterwards, so this
	// look-up cannot miss one that was made since.
	if _, found = b.complete.lookup(chunk); !found && s.flags.Load()&needs == needs {
		pe = s.makeLocked(sl, b, chunk, anywhere)
	}
	if pe == nil {
		sl.mu.Unlock()
	}
	return pe, sl, found
}

// join leaves a write with pe, or lets it take the copy's place if it covers the
// chunk and is the first. It unlocks the slot.
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

// full is what a store without room for a write to the snapshot means. With
// overflow support reads go on.
func (s *snapshot) full() {
	if !s.overflow {
		s.invalidate("its store is full")
	} else if s.set(flagOverflowed, 0)&flagOverflowed == 0 {
		s.target.Log().Error("snapshot's store is full: writes to it fail from now on")
	}
}
