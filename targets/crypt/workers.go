package crypt

import (
	"math/bits"
	"runtime"
	"sync"

	"udm/blk"
	"udm/dm"
	"udm/env"
)

// Buffers come in classes of 4 KiB · 2^n.
const (
	smallestClass = 12                                 // log2 bytes
	classes       = 6                                  // up to 128 KiB
	maxBuffer     = 1 << (smallestClass + classes - 1) // bytes
	memoryLimit   = 16 << 20                           // bytes of writes in flight, for each target
)

// buffer holds what one write writes below.
type buffer struct {
	data  []byte
	class int
}

var buffers [classes]sync.Pool

// takeBuffer is a buffer of at least so many bytes, maxBuffer at most.
func takeBuffer(bytes uint64) *buffer {
	class := max(0, bits.Len64(bytes-1)-smallestClass)
	if b, ok := buffers[class].Get().(*buffer); ok {
		return b
	}
	return &buffer{make([]byte, 1<<(smallestClass+class)), class}
}

func (b *buffer) put() { buffers[b.class].Put(b) }

// workers encrypt and decrypt clones, one for each processor. Each is a work that
// is queued while there is something to do; so no queue is ever full.
type workers struct {
	pool env.Workers

	mu      sync.Mutex
	todo    dm.CloneList // guarded by mu
	idle    []*env.Work  // guarded by mu; not queued
	waiting dm.CloneList // guarded by mu; writes for which there is no memory
	used    uint64       // guarded by mu; bytes of writes in todo and below
}

func (w *workers) init(c *crypt) {
	n := runtime.GOMAXPROCS(0)
	w.pool = c.target.Env().NewWorkers("kcryptd", n, n, nil)
	for range n {
		work := &env.Work{}
		work.Fn = func() {
			for cl := w.next(work); cl != nil; cl = w.next(work) {
				c.work(cl)
			}
		}
		w.idle = append(w.idle, work)
	}
}

// next is the next clone for a work, nil to end it.
func (w *workers) next(work *env.Work) *dm.Clone {
	w.mu.Lock()
	defer w.mu.Unlock()
	cl := w.todo.Pop()
	if cl == nil {
		w.idle = append(w.idle, work)
	}
	return cl
}

// push has a clone worked on.
func (w *workers) push(cl *dm.Clone) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.pushLocked(cl)
}

func (w *workers) pushLocked(cl *dm.Clone) {
	w.todo.Push(cl)
	if n := len(w.idle); n > 0 {
		w.pool.Queue(w.idle[n-1])
		w.idle = w.idle[:n-1]
	}
}

// admit counts the memory that a write needs. When there is none, the write waits
// for release to push it, unless it must not wait.
func (w *workers) admit(cl *dm.Clone) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.waiting.Empty() && w.used+cl.Bytes() <= memoryLimit {
		w.used += cl.Bytes()
		return true
	}
	if cl.Flags&blk.NoWait == 0 {
		w.waiting.Push(cl)
	}
	return false
}

// release gives memory back, and lets the writes go on that have waited for it.
func (w *workers) release(bytes uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.used -= bytes
	for cl := w.waiting.Pop(); cl != nil; cl = w.waiting.Pop() {
		if w.used+cl.Bytes() > memoryLimit {
			w.waiting.PushHead(cl)
			return
		}
		w.used += cl.Bytes()
		w.pushLocked(cl)
	}
}

func (w *workers) close() { w.pool.Close() }
