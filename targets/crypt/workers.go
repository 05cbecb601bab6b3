package crypt

import (
	"math/bits"
	"sync"

	"udm/blk"
	"udm/dm"
	"udm/targets/internal/parallel"
)

// Buffers come in classes of 4 KiB · 2^n.
const (
	smallestClass = 12                                 // log2 bytes
	classes       = 6                                  // up to 128 KiB
	maxBuffer     = 1 << (smallestClass + classes - 1) // bytes
	memoryLimit   = 16 << 20                           // bytes of buffers in use, for each target
)

// buffer holds what a clone writes below, or reads there with tags.
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

// workers encrypt and decrypt clones, as long as there is memory for them.
type workers struct {
	parallel.Queue

	mu      sync.Mutex
	waiting dm.CloneList // guarded by mu; clones for which there is no memory
	used    uint64       // guarded by mu; bytes of the buffers that clones have, or will have once it is their turn
}

func (w *workers) init(c *crypt) {
	w.Init(c.target.Env(), "kcryptd", 0, func() func(*dm.Clone) { return c.work })
}

// admit counts the memory that a clone needs. When there is none, the clone waits
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

// release gives memory back, and lets the clones go on that have waited for it.
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
		w.Push(cl)
	}
}
