package export

import (
	"sync"
	"sync/atomic"

	"udm/blk"
	"udm/blk/checkdev"
)

// Lasting returns the same exports for clients that do not learn of the end of this process:
// completed writes outlive it. On most devices they do anyway; others keep metadata in memory
// until a flush ([Export.NeedsFlush]), and there one flush serves all writes that have ended
// when it begins. A write that is not FUA may fail for the flush.
func Lasting(x Exports) Exports { return lasting{x} }

type lasting struct{ Exports }

// Open implements [Exports].
func (l lasting) Open(name string) (*Export, error) {
	e, err := l.Exports.Open(name)
	if err != nil {
		return nil, err
	}
	below := *e
	e.Device = Check(&keeper{Device: e.Device, needsFlush: below.NeedsFlush, clones: sync.Pool{New: func() any { return new(keptWrite) }}})
	return e, nil
}

// keeper is a device whose writes end when they outlive this process.
//
//	written ─ no flush is needed ──────────────► ended
//	   └───── a flush begins ─► covered ─ it ends ─► ended
type keeper struct {
	*checkdev.Device
	needsFlush func() bool
	clones     sync.Pool // of *keptWrite

	mu      sync.Mutex // leaf
	busy    bool       // guarded by mu; somebody flushes
	written blk.List   // guarded by mu; the bios that were submitted here

	// Whoever flushes uses these.
	flush   blk.Bio
	covered blk.List
	phase   atomic.Int32
}

// keptWrite is a write under way.
type keptWrite struct {
	blk.Bio
	keeper *keeper
	bio    *blk.Bio // that was submitted here
}

// Submit implements [blk.Device].
func (k *keeper) Submit(b *blk.Bio) {
	if !b.Op.IsWrite() || b.Op == blk.Flush || b.Flags&blk.FUA != 0 || !k.Limits().ProcessCache {
		k.Device.Submit(b)
		return
	}
	w := k.clones.Get().(*keptWrite)
	w.CloneFrom(b)
	w.keeper, w.bio, w.End, w.Private = k, b, writeEnded, w
	k.Device.Submit(&w.Bio)
}

func writeEnded(b *blk.Bio) {
	w := b.Private.(*keptWrite)
	k, bio, st := w.keeper, w.bio, w.Status()
	w.Reset()
	w.keeper, w.bio = nil, nil
	k.clones.Put(w)
	if st != blk.OK || !k.needsFlush() {
		bio.Complete(st)
		return
	}
	if k.add(bio) {
		k.flushAll()
	}
}

// add keeps a write, and reports whether the caller is to flush.
func (k *keeper) add(b *blk.Bio) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.written.Push(b)
	if k.busy {
		return false
	}
	k.busy = true
	return true
}

// cover takes the writes for the next flush, if there are any.
func (k *keeper) cover() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.covered = k.written.Take()
	k.busy = !k.covered.Empty()
	return k.busy
}

// Phases of a flush: the second of its End and the return of Submit goes on.
const (
	submitting = iota
	submitted
	flushed
)

// flushAll flushes until all writes have ended, or leaves that to the end of a flush.
func (k *keeper) flushAll() {
	for k.cover() {
		k.flush.Reset()
		k.flush.Op, k.flush.End, k.flush.Private = blk.Flush, flushEnded, k
		k.phase.Store(submitting)
		k.Device.Submit(&k.flush)
		if k.phase.CompareAndSwap(submitting, submitted) {
			return
		}
		k.endCovered()
	}
}

func flushEnded(b *blk.Bio) {
	k := b.Private.(*keeper)
	if k.phase.CompareAndSwap(submitting, flushed) {
		return
	}
	k.endCovered()
	k.flushAll()
}

func (k *keeper) endCovered() {
	st := k.flush.Status()
	for b := k.covered.Pop(); b != nil; b = k.covered.Pop() {
		b.Complete(st)
	}
}
