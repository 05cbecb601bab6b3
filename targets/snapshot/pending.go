package snapshot

import (
	"math/bits"
	"sync"
	"sync/atomic"

	"udm/dm"
	"udm/targets/internal/kcopyd"
)

// pending is a chunk that is being copied to the COW device (the kernel's struct
// dm_snap_pending_exception).
//
//	made ─┬─ copy of the origin's chunk ─┐    recorded    reads of the
//	      └─ write of the whole chunk ───┴─► by the store ─► origin ended ─► gone
//
// Bios wait for it in three places: writes to the snapshot, writes to the origin, and
// a write of the whole chunk that replaces the copy.
type pending struct {
	exception // old and new are set when it is created
	snap      *snapshot
	shard     *kcopyd.Shard // of the snapshot's in-flight counters

	started bool         // guarded by the slot's mu
	writes  dm.CloneList // guarded by the slot's mu; of the snapshot, remapped
	origins dm.CloneList // guarded by the slot's mu
	merges  []func()     // guarded by the slot's mu; merges that wait
	inTable *pending     // guarded by the slot's mu; next one in the slot

	job     kcopyd.Job // the copy, or the callback of the full write
	full    *fullWrite // the write that covers the chunk; guarded by the slot's mu
	run     *pending   // next one of the same full write
	drained func()
}

// pendingTable finds pending exceptions by chunk. The locks of its slots decide who
// creates an exception: while a slot is locked, no exception of its chunks is created
// or removed. The slots are allocated when the first is used: of thousands of clones
// most are never written to.
type pendingTable struct {
	size  uint64                 // slots, a power of two
	slots atomic.Pointer[[]slot] // nil: not made
	pool  sync.Pool              // of *pending
	fulls sync.Pool              // of *fullWrite
}

type slot struct {
	mu   sync.Mutex
	head atomic.Pointer[pending] // written under mu; may be read without it
}

const minSlots, maxSlots = 64, 1 << 12

func (t *pendingTable) init(s *snapshot, chunks uint64) {
	n := min(max(chunks/8, minSlots), maxSlots)
	t.size = 1 << (bits.Len64(n) - 1)
	t.slots.Store(nil)
	t.pool.New = func() any {
		pe := &pending{snap: s, shard: s.inFlight.Pick()}
		pe.exception.done = pe.recorded
		pe.job.Done, pe.job.Private, pe.job.AtOnce = s.copied, pe, true
		pe.drained = func() { pe.finish(false) }
		return pe
	}
	t.fulls.New = func() any {
		f := &fullWrite{snap: s}
		f.ended = f.end
		return f
	}
}

func (t *pendingTable) slot(chunk uint64) *slot {
	slots := t.slots.Load()
	if slots == nil {
		slots = t.make()
	}
	return &(*slots)[chunk&uint64(len(*slots)-1)]
}

func (t *pendingTable) make() *[]slot {
	slots := make([]slot, t.size)
	t.slots.CompareAndSwap(nil, &slots)
	return t.slots.Load()
}

// made are the slots that may have exceptions. Who makes the slots afterwards sees
// what the caller has done before.
func (t *pendingTable) made() []slot {
	if slots := t.slots.Load(); slots != nil {
		return *slots
	}
	return nil
}

// lookupLocked finds chunk's pending exception. Called with mu held.
func (sl *slot) lookupLocked(chunk uint64) *pending {
	for pe := sl.head.Load(); pe != nil; pe = pe.inTable {
		if pe.old == chunk {
			return pe
		}
	}
	return nil
}

// removeLocked removes pe. Called with mu held.
func (sl *slot) removeLocked(pe *pending) {
	if sl.head.Load() == pe {
		sl.head.Store(pe.inTable)
		return
	}
	p := sl.head.Load()
	for p.inTable != pe {
		p = p.inTable
	}
	p.inTable = pe.inTable
}

// free recycles pe, which is in no table.
func (pe *pending) free() {
	pe.started, pe.full, pe.run, pe.merges, pe.inTable = false, nil, nil, nil, nil
	pe.snap.pending.pool.Put(pe)
}

// makeLocked creates the pending exception of a chunk that has none. Its place in the
// store is where, or anywhere. It returns nil if the place is taken or the store is
// full. Called with the slot's mu held.
func (s *snapshot) makeLocked(sl *slot, b *body, chunk, where uint64) *pending {
	pe := s.pending.pool.Get().(*pending)
	pe.old = chunk
	if !b.store.prepare(&pe.exception, where) {
		pe.free()
		return nil
	}
	s.at(pointPlaced)
	pe.shard = s.inFlight.Begin(pe.shard)
	pe.inTable = sl.head.Load()
	sl.head.Store(pe)
	return pe
}

// startCopy copies the chunk, up to the end of the origin.
func (pe *pending) startCopy(b *body) {
	r := pe.record
	pe.snap.inFlight.Take(pe.shard, 1)
	pe.copy(b)
	b.store.sent(r)
}

func (pe *pending) copy(b *body) {
	s, j := pe.snap, &pe.job
	j.From = kcopyd.Place{Dev: s.originDev, Sector: pe.old << b.shift}
	j.SetTo(kcopyd.Place{Dev: s.cowDev, Sector: pe.new << b.shift})
	j.Sectors = s.clip(j.From.Sector, b.mask+1)
	s.kc.Copy(j)
}

// clip returns sectors, shortened to the end of the origin.
func (s *snapshot) clip(sector, sectors uint64) uint64 {
	end := s.originEnd
	if sector+sectors > end {
		end = s.origin.Limits().Size
	}
	return min(sectors, end-min(sector, end))
}
