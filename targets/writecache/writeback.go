package writecache

import (
	"cmp"
	"slices"
	"time"

	"udm/blk"
	"udm/targets/internal/kcopyd"
)

const (
	maxRuns      = 64  // written back at a time
	maxRunBlocks = 256 // in a run
)

// run is a number of blocks that follow each other on both devices.
type run struct {
	job    kcopyd.Job
	sector uint64
	first  int32
	blocks int32
}

// lookAtAge makes a pass from time to time, which writes back what is old.
func (w *writecache) lookAtAge() {
	w.mu.Lock()
	if !w.stopped {
		w.queue.QueueAfter(w.ageWork, max(w.maxAge/ageParts, soon))
	}
	w.mu.Unlock()
	w.pass()
}

// writeBack begins to copy blocks to the origin if there are any that have to be, and
// none is being copied.
func (w *writecache) writeBack() {
	if len(w.runs) > 0 || !w.mayWriteBack() {
		return
	}
	if w.oldestWaitsForCommit() && w.commit() != nil {
		return
	}
	w.mu.Lock()
	w.chooseRuns()
	if len(w.runs) == 0 {
		w.cleanLocked()
		w.mu.Unlock()
		w.wait.Wake()
		return
	}
	writes := w.writes.seal()
	w.mu.Unlock()
	w.until(func() bool { return w.writes.n[writes] == 0 })
	slices.SortFunc(w.runs, func(a, b *run) int { return cmp.Compare(a.sector, b.sector) })
	w.copying = 1
	for _, r := range w.runs {
		w.copy(r)
	}
	w.copied()
}

// mayWriteBack reports whether blocks may be copied now; if not, a later pass looks
// again.
func (w *writecache) mayWriteBack() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	all := w.goal > w.cleaned
	now := w.env.Now()
	switch {
	case w.err != nil, w.stopped && !all:
		return false
	case now < w.retryAt:
		w.queue.QueueAfter(w.lateWork, w.retryAt-now)
		return false
	case w.pause == 0, w.cleaner, all, !w.wanted(w.entries.oldest):
		return true
	}
	idle := now - w.calmSince
	if w.around > 0 {
		idle = 0
	}
	if idle >= w.pause {
		return true
	}
	w.queue.QueueAfter(w.lateWork, min(w.pause-idle, time.Second))
	return false
}

// wanted reports whether a block should be written back. Called with mu held.
func (w *writecache) wanted(i int32) bool {
	if i == none {
		return false
	}
	if w.freeSet.size+w.writing <= w.high {
		w.draining = true
	} else if w.freeSet.size+w.writing > w.low {
		w.draining = false
	}
	e := &w.entries.all[i]
	return w.draining || e.seq < w.goal && w.goal > w.cleaned ||
		w.maxAge >= 0 && w.env.Now()-e.age >= w.maxAge-w.maxAge/ageParts
}

func (w *writecache) oldestWaitsForCommit() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	i := w.entries.oldest
	return w.wanted(i) && w.entries.all[i].seq >= w.committed
}

// chooseRuns takes blocks to be written back, the oldest first, each with those that
// follow it on both devices. A block whose sector has an older entry waits for that one.
// Called with mu held.
func (w *writecache) chooseRuns() {
	left := w.maxJobs
	if left == 0 {
		left = maxRuns * maxRunBlocks
	}
	for i := w.entries.oldest; len(w.runs) < maxRuns && left > 0 && w.wanted(i) && w.ready(i); {
		if w.entries.hasOlder(i) {
			i = w.entries.all[i].newer
			continue
		}
		r := &run{sector: w.entries.all[i].sector, first: i}
		for at := i; ; {
			w.entries.unlink(at)
			w.entries.all[at].state = writing
			w.writing++
			left--
			if r.blocks++; r.blocks == maxRunBlocks || left == 0 {
				break
			}
			if at = w.entries.following(at); at == none || !w.ready(at) || w.entries.hasOlder(at) {
				break
			}
		}
		w.runs = append(w.runs, r)
		i = w.entries.oldest
	}
}

// ready reports whether a block can be copied: it has been written, and the metadata on
// disk have it. Called with mu held.
func (w *writecache) ready(i int32) bool {
	e := &w.entries.all[i]
	return e.state == live && e.seq < w.committed
}

// cleanLocked says how far what is to be written back has been, while nothing is being
// written back. If the next block has to wait for its first write it is looked at again.
func (w *writecache) cleanLocked() {
	i := w.entries.oldest
	if i == none || w.entries.all[i].seq >= w.goal {
		w.cleaned = max(w.cleaned, w.goal)
	}
	if w.wanted(i) {
		w.queue.QueueAfter(w.lateWork, soon)
	}
}

// copy copies a run to the origin, as far as that reaches.
func (w *writecache) copy(r *run) {
	n := uint64(r.blocks) * w.blockSectors
	size := w.origin.Limits().Size
	j := &r.job
	j.From, j.Done = kcopyd.Place{Dev: w.from, Sector: w.sector(r.first)}, func(*kcopyd.Job) { w.copied() }
	j.SetTo(kcopyd.Place{Dev: w.to, Sector: r.sector})
	j.Sectors = min(n, max(size, r.sector)-r.sector)
	w.copying++
	w.copier.Copy(j)
}

// copied counts a copy that has ended.
func (w *writecache) copied() {
	if w.copying--; w.copying == 0 {
		w.queue.Queue(w.passWork)
	}
}

// finishRuns makes blocks leave the cache that are on the origin for good.
func (w *writecache) finishRuns() {
	if len(w.runs) == 0 || w.copying > 0 {
		return
	}
	var err error
	for _, r := range w.runs {
		if j := &r.job; j.Failed() && (err == nil || !j.NoSpace) {
			err = blk.IOErr
			if j.NoSpace {
				err = blk.NoSpace
			}
		}
	}
	flushed := blk.FlushDevice(w.env, w.origin)
	if err == nil {
		err = flushed
	}
	if err != nil {
		w.tryLater(err)
		_ = w.failed(err, "blocks cannot be written back")
	}
	w.mu.Lock()
	for _, r := range w.runs {
		w.endRun(r, flushed == nil)
	}
	w.runs = w.runs[:0]
	w.mu.Unlock()
	w.wait.Wake()
}

// endRun makes the blocks of a run leave the cache if they are on the origin, else they
// are as before. Called with mu held.
func (w *writecache) endRun(r *run, flushed bool) {
	done := flushed && !r.job.Failed()
	for i := r.first + r.blocks - 1; i >= r.first; i-- {
		if done {
			w.entries.all[i].state = leaving
			w.leaving = append(w.leaving, i)
			continue
		}
		w.entries.all[i].state = live
		w.entries.pushOldest(i)
		w.writing--
	}
}

// writeBackAll commits, writes back what is in the cache, and waits for that.
func (w *writecache) writeBackAll() error {
	var err error
	w.call(func() { err = w.commit() })
	if err != nil {
		return err
	}
	w.mu.Lock()
	goal, giveUps := w.seq, w.giveUps
	w.goal = max(w.goal, goal)
	w.mu.Unlock()
	w.queue.Queue(w.passWork)
	w.until(func() bool {
		if err = w.err; err == nil && w.giveUps > giveUps {
			err = blk.NoSpace
		}
		return err != nil || w.cleaned >= goal
	})
	return err
}
