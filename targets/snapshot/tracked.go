package snapshot

import (
	"sync"
	"sync/atomic"
)

// tracked counts the bios of a snapshot that must end before a chunk of the lower
// device may be overwritten: reads of the origin, and in a merging snapshot writes to
// the COW device. A bio may cover several chunks of one group of the table. Groups
// are spread over shards, so that unrelated bios rarely meet.
//
// A bio that is tracked because a chunk has no exception checks again after it is
// tracked; whoever adds the exception waits for tracked bios afterwards. One of the
// two sees the other.
type tracked struct{ shards [64]trackShard }

type trackShard struct {
	n       atomic.Int32 // length of the list; changed under mu
	mu      sync.Mutex
	head    *perIO   // guarded by mu
	waiters []waiter // guarded by mu
	_       [16]byte // pads to a cache line
}

// waiter is called once no bio of its chunk is tracked.
type waiter struct {
	chunk uint64
	fn    func()
}

// perIO is the snapshot's data for each clone. It belongs to the clone while tracked
// is false, else to the shard of its chunk.
type perIO struct {
	tracked    bool
	chunk, n   uint64 // first chunk and number
	prev, next *perIO
	_          [24]byte // pads to a cache line
}

func (t *tracked) shard(chunk uint64) *trackShard {
	return &t.shards[(chunk>>groupShift*0x9e3779b97f4a7c15)>>58]
}

func (io *perIO) has(chunk uint64) bool { return chunk-io.chunk < io.n }

func (t *tracked) add(io *perIO, chunk, n uint64) {
	sh := t.shard(chunk)
	io.tracked, io.chunk, io.n = true, chunk, n
	sh.mu.Lock()
	sh.n.Add(1)
	io.prev, io.next = nil, sh.head
	if sh.head != nil {
		sh.head.prev = io
	}
	sh.head = io
	sh.mu.Unlock()
}

// remove undoes add and calls the waiters that waited for it.
func (t *tracked) remove(io *perIO) {
	io.tracked = false
	sh := t.shard(io.chunk)
	sh.mu.Lock()
	sh.n.Add(-1)
	if io.prev != nil {
		io.prev.next = io.next
	} else {
		sh.head = io.next
	}
	if io.next != nil {
		io.next.prev = io.prev
	}
	io.prev, io.next = nil, nil
	ready := sh.takeReadyLocked(io)
	sh.mu.Unlock()
	for _, w := range ready {
		w.fn()
	}
}

// takeReadyLocked removes and returns the waiters that waited for io, which is gone,
// and for no other bio.
func (sh *trackShard) takeReadyLocked(io *perIO) (ready []waiter) {
	if len(sh.waiters) == 0 {
		return nil
	}
	rest := sh.waiters[:0]
	for _, w := range sh.waiters {
		if io.has(w.chunk) && !sh.hasLocked(w.chunk) {
			ready = append(ready, w)
		} else {
			rest = append(rest, w)
		}
	}
	clear(sh.waiters[len(rest):])
	sh.waiters = rest
	return ready
}

func (sh *trackShard) hasLocked(chunk uint64) bool {
	for io := sh.head; io != nil; io = io.next {
		if io.has(chunk) {
			return true
		}
	}
	return false
}

// drain returns true if chunk is not tracked now; otherwise fn is called once it is
// not.
func (t *tracked) drain(chunk uint64, fn func()) bool {
	sh := t.shard(chunk)
	if sh.n.Load() == 0 {
		return true
	}
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if !sh.hasLocked(chunk) {
		return true
	}
	sh.waiters = append(sh.waiters, waiter{chunk, fn})
	return false
}

// idle reports whether nothing is tracked.
func (t *tracked) idle() bool {
	for i := range t.shards {
		sh := &t.shards[i]
		sh.mu.Lock()
		busy := sh.head != nil || len(sh.waiters) > 0
		sh.mu.Unlock()
		if busy {
			return false
		}
	}
	return true
}
