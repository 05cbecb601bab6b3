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
	e.Device = Check(&lastingDevice{Device: e.Device, needsFlush: below.NeedsFlush, clones: sync.Pool{New: func() any { return new(lastingWrite) }}})
	return e, nil
}

// lastingDevice is a device whose writes end when they outlive this process.
//
//	written ─ no flush is needed ──────────────► ended
//	   └───── a flush begins ─► covered ─ it ends ─► ended
type lastingDevice struct {
	*checkdev.Device
	needsFlush func() bool
	clones     sync.Pool // of *lastingWrite

	mu      sync.Mutex // leaf
	busy    bool       // guarded by mu; somebody flushes
	written blk.List   // guarded by mu; the bios that were submitted here

	// Whoever flushes uses these.
	flush   blk.Bio
	covered blk.List
	phase   atomic.Int32
}

// lastingWrite is a write under way.
type lastingWrite struct {
	blk.Bio
	dev *lastingDevice
	bio *blk.Bio // that was submitted here
}

// Submit implements [blk.Device].
func (d *lastingDevice) Submit(b *blk.Bio) {
	if !b.Op.IsWrite() || b.Op == blk.Flush || b.Flags&blk.FUA != 0 || !d.Limits().ProcessCache {
		d.Device.Submit(b)
		return
	}
	w := d.clones.Get().(*lastingWrite)
	w.CloneFrom(b)
	w.dev, w.bio, w.End, w.Private = d, b, writeEnded, w
	d.Device.Submit(&w.Bio)
}

func writeEnded(b *blk.Bio) {
	w := b.Private.(*lastingWrite)
	d, bio, st := w.dev, w.bio, w.Status()
	w.Reset()
	w.dev, w.bio = nil, nil
	d.clones.Put(w)
	if st != blk.OK || !d.needsFlush() {
		bio.Complete(st)
		return
	}
	if d.add(bio) {
		d.flushAll()
	}
}

// add keeps a write, and reports whether the caller is to flush.
func (d *lastingDevice) add(b *blk.Bio) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.written.Push(b)
	if d.busy {
		return false
	}
	d.busy = true
	return true
}

// cover takes the writes for the next flush, if there are any.
func (d *lastingDevice) cover() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.covered = d.written.Take()
	d.busy = !d.covered.Empty()
	return d.busy
}

// Phases of a flush: the second of its End and the return of Submit goes on.
const (
	submitting = iota
	submitted
	flushed
)

// flushAll flushes until all writes have ended, or leaves that to the end of a flush.
func (d *lastingDevice) flushAll() {
	for d.cover() {
		d.flush.Reset()
		d.flush.Op, d.flush.End, d.flush.Private = blk.Flush, flushEnded, d
		d.phase.Store(submitting)
		d.Device.Submit(&d.flush)
		if d.phase.CompareAndSwap(submitting, submitted) {
			return
		}
		d.endCovered()
	}
}

func flushEnded(b *blk.Bio) {
	d := b.Private.(*lastingDevice)
	if d.phase.CompareAndSwap(submitting, flushed) {
		return
	}
	d.endCovered()
	d.flushAll()
}

func (d *lastingDevice) endCovered() {
	st := d.flush.Status()
	for b := d.covered.Pop(); b != nil; b = d.covered.Pop() {
		b.Complete(st)
	}
}
