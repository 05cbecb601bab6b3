package snapshot

import (
	"sync/atomic"

	"udm/dm"
)

// exception is a chunk of the origin that gets a chunk of its own in the COW device:
// the store's part of a pending exception.
type exception struct {
	old, new uint64
	// done is called exactly once, with whether the exception was recorded.
	done   func(ok bool)
	record *record // used by the persistent store
}

// anywhere is not a chunk of any COW device.
const anywhere = ^uint64(0)

// store allocates chunks of the COW device and records which chunk is where (the
// kernel's struct dm_exception_store_type).
type store interface {
	// chunkSize is the chunk size in sectors.
	chunkSize() uint64
	// open reads the store or creates it; valid is false if the snapshot was dropped.
	// read then passes the recorded exceptions to add. Both may wait for I/O.
	open() (valid bool, err error)
	read(add func(old, new uint64) error) error
	// unflushed reports whether a power cut could lose what open has found, and flush makes
	// that durable.
	unflushed() bool
	flush(done func(ok bool))
	// use directs I/O to cow, another handle of the same device: whoever takes a
	// store over outlives whoever opened it. park queues work that finds no space
	// there. No I/O is in flight.
	use(cow *dm.Dev, park func(again, giveUp func()) bool)
	// prepare allocates a chunk for e: where, or any. It returns false if the store
	// is full, or where is not the next one to be allocated.
	prepare(e *exception, where uint64) bool
	// sent says that the I/O for the data of r's exception was submitted. The
	// exception may have been committed already.
	sent(r *record)
	// commit records e. If ok is false its data was not written, and nothing more
	// will be recorded.
	commit(e *exception, ok bool)
	// drop marks the store invalid for good and calls done.
	drop(done func())
	// usage is in sectors.
	usage() (allocated, total, metadata uint64)
	// persistent reports whether the store survives a restart.
	persistent() bool
	// merger returns nil if the store cannot be merged.
	merger() merger
	// close waits for the store's I/O.
	close()
}

// merger removes exceptions from a store, the last ones first. Its calls do not
// overlap.
type merger interface {
	// prepareMerge finds the last run of chunks that are consecutive in both origin
	// and COW device; n is 0 if none is left.
	prepareMerge(done func(old, new, n uint64, err error))
	// commitMerge removes the last n exceptions.
	commitMerge(n uint64, done func(error))
	// doubt returns the run whose removal failed: on the disk it may be there or not.
	// prepareMerge returns it again.
	doubt() mergedRun
	// endMerge lets exceptions be recorded again, from chunk free on, and waits until
	// those in doubt are on the disk again.
	endMerge(free uint64) error
}

// mergedRun is n exceptions, the last of which maps old to new.
type mergedRun struct{ old, new, n uint64 }

// transient is the store that exists in memory only (dm-snap-transient.c). Chunks are
// allocated from the start of the device.
type transient struct {
	cow   *dm.Dev
	chunk uint64
	room  room
	_     [64]byte
	free  atomic.Uint64 // every prepare writes it, so it has its own cache line
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
func (t *transient) unflushed() bool                        { return false }
func (t *transient) flush(done func(ok bool))               { done(true) }
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

// prepare takes the next chunk first and checks the room afterwards: a load before
// would move the counter's cache line twice. Room only grows, so a chunk without room
// is given back once those behind it are, or turns out to have room.
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

// room caches the size of a device. The device may grow; shrinking goes unnoticed.
type room struct {
	dev *dm.Dev
	end atomic.Uint64 // sectors; the largest size seen
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
