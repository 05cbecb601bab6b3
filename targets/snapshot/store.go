package snapshot

import (
	"sync/atomic"

	"udm/dm"
)

// exception is a chunk of the origin that is being given a place of its own in
// the COW device: what a store sees of a pending exception.
type exception struct {
	old, new uint64
	// done is called once when the exception is recorded for good, or not.
	done   func(ok bool)
	record *record // what a persistent store knows of it
}

// anywhere is no chunk of a COW device.
const anywhere = ^uint64(0)

// store hands out chunks of the COW device and remembers which chunk is where
// (the kernel's struct dm_exception_store_type).
type store interface {
	// chunkSize is the chunk size in sectors.
	chunkSize() uint64
	// open reads what is there or makes it; valid is false if the snapshot was
	// dropped. read then finds the exceptions that were recorded earlier. Both
	// may wait for I/O.
	open() (valid bool, err error)
	read(add func(old, new uint64) error) error
	// use makes cow, another open of the same device, the one that I/O goes to:
	// who takes a store over outlives whoever opened it. park keeps what found no
	// space there for later. No I/O is in flight.
	use(cow *dm.Dev, park func(again, giveUp func()) bool)
	// prepare gives e a new chunk, the one at where or any; false when the store
	// is full, or where is not the next one that it would give.
	prepare(e *exception, where uint64) bool
	// sent says that the I/O for the data of r's exception is under way. The
	// exception may have been committed by now.
	sent(r *record)
	// commit records e, or with ok false takes note that its data did not
	// arrive: nothing more will be recorded.
	commit(e *exception, ok bool)
	// drop marks the store invalid for ever and calls done.
	drop(done func())
	// usage is in sectors.
	usage() (allocated, total, metadata uint64)
	// persistent says that the store is there after a restart.
	persistent() bool
	// merger is nil when the store cannot be merged.
	merger() merger
	// close waits for I/O of the store.
	close()
}

// merger takes the exceptions out of a store again, the last ones first. One
// call is under way at a time.
type merger interface {
	// prepareMerge finds the last run of chunks that are consecutive in origin
	// and COW device; n is 0 when there is none left.
	prepareMerge(done func(old, new, n uint64, err error))
	// commitMerge forgets the last n exceptions.
	commitMerge(n uint64, done func(error))
	// doubt is the run whose forgetting failed: on the disk it may be there or
	// not. prepareMerge gives it again.
	doubt() mergedRun
	// endMerge lets exceptions be recorded again, at free and behind, and waits
	// until what is in doubt is on the disk again.
	endMerge(free uint64) error
}

// mergedRun is n exceptions, the last of which maps old to new.
type mergedRun struct{ old, new, n uint64 }

// transient is the store that remembers nothing beyond its life
// (dm-snap-transient.c). Chunks are handed out from the device's begin.
type transient struct {
	cow   *dm.Dev
	chunk uint64
	room  room
	_     [64]byte
	free  atomic.Uint64 // written by every prepare, so away from the rest
	_     [56]byte
}

func newTransient(cow *dm.Dev, chunk uint64) *transient {
	t := &transient{cow: cow, chunk: chunk}
	t.room.init(cow)
	return t
}

func (t *transient) use(cow *dm.Dev, _ func(again, giveUp func()) bool) {
	t.cow = cow
	t.room.init(cow)
}

func (t *transient) chunkSize() uint64                      { return t.chunk }
func (t *transient) open() (bool, error)                    { return true, nil }
func (t *transient) read(func(old, new uint64) error) error { return nil }
func (t *transient) sent(*record)                           {}
func (t *transient) commit(e *exception, ok bool)           { e.done(ok) }
func (t *transient) drop(done func())                       { done() }
func (t *transient) persistent() bool                       { return false }
func (t *transient) merger() merger                         { return nil }
func (t *transient) close()                                 {}
func (t *transient) usage() (allocated, total, metadata uint64) {
	total = t.cow.Limits().Size
	return min(t.free.Load(), total/t.chunk) * t.chunk, total, 0
}

// prepare takes the next chunk first and looks whether there was one after: a load
// before would let the counter's cache line travel twice. As the room only grows, a
// chunk is given back once those behind it are, or turns out to have room.
func (t *transient) prepare(e *exception, where uint64) bool {
	if where != anywhere {
		e.new = where
		return t.hasPlace(where) && t.free.CompareAndSwap(where, where+1)
	}
	e.new = t.free.Add(1) - 1
	for !t.hasPlace(e.new) {
		if t.free.CompareAndSwap(e.new+1, e.new) {
			return false
		}
	}
	return true
}

func (t *transient) hasPlace(n uint64) bool { return t.room.has((n + 1) * t.chunk) }

// room tells how far a device goes. It may have grown since it was asked; that it
// shrinks goes unnoticed.
type room struct {
	dev *dm.Dev
	end atomic.Uint64 // sectors; the most that was seen
}

func (r *room) init(d *dm.Dev) {
	r.dev = d
	r.end.Store(d.Limits().Size)
}

func (r *room) has(sectors uint64) bool {
	for {
		end := r.end.Load()
		if sectors <= end {
			return true
		}
		now := r.dev.Limits().Size
		if now <= end {
			return false
		}
		r.end.CompareAndSwap(end, now)
	}
}
