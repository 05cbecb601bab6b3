package writecache

import (
	"time"

	"udm/blk"
	"udm/dm"
	"udm/env"
)

const (
	retryTime = time.Second           // until what has found no space is tried again
	soon      = 10 * time.Millisecond // until what cannot be done yet is looked at again
)

// call runs fn on the owner.
func (w *writecache) call(fn func()) { env.Call(w.queue, w.wait, fn) }

// until waits for a condition, which is looked at with mu held.
func (w *writecache) until(cond func() bool) {
	w.wait.Until(func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		return cond()
	})
}

func (w *writecache) autocommit() {
	w.mu.Lock()
	w.due, w.armed = true, false
	w.mu.Unlock()
	w.pass()
}

// pass is the owner's work: commits, what has been written back, discards, what has
// waited, and the next blocks to be written back.
func (w *writecache) pass() {
	w.mu.Lock()
	if w.entries == nil {
		w.mu.Unlock()
		return
	}
	flushes, due := w.inbox.flushes.Take(), w.due
	discards := w.inbox.discards.Take()
	w.due = false
	w.mu.Unlock()
	w.discards.Append(&discards)
	if due || !flushes.Empty() {
		st := blk.StatusOf(w.commit())
		for c := flushes.Pop(); c != nil; c = flushes.Pop() {
			c.Rearm()
			c.Complete(st)
		}
	}
	w.finishRuns()
	ready := w.takeDiscards()
	w.takeDropped()
	w.endDiscards(ready, w.retire())
	w.mapAgain()
	w.writeBack()
}

// commit makes durable which sectors are in the cache: see the package comment. It does
// nothing if nothing has changed.
func (w *writecache) commit() error {
	w.mu.Lock()
	w.queue.Cancel(w.autoWork)
	w.armed, w.counted = false, 0
	changed, overwrote := w.fresh > 0 || w.committed < w.seq, w.overwrote
	if w.err != nil || !changed && !overwrote {
		defer w.mu.Unlock()
		return w.err
	}
	if w.fresh > 0 {
		w.seq++
		w.fresh = 0
	}
	w.overwrote = false
	seq, old := w.seq, w.writes.seal()
	w.mu.Unlock()
	w.until(func() bool { return w.writes.n[old] == 0 })
	w.recordEntries(seq)
	err := w.writeChanges()
	if err == nil && changed {
		err = w.writeSuperblock(seq)
	}
	if err != nil {
		w.mu.Lock()
		w.overwrote = w.overwrote || overwrote
		w.due = true
		w.mu.Unlock()
		w.tryLater(err)
		return w.failed(err, "the metadata cannot be written")
	}
	w.mu.Lock()
	w.committed = seq
	w.mu.Unlock()
	return nil
}

// recordEntries puts the entries that are not committed and older than seq into the
// image.
func (w *writecache) recordEntries(seq uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := w.entries.newest; i != none; i = w.entries.all[i].older {
		e := &w.entries.all[i]
		if e.seq < w.committed {
			return
		}
		if e.seq < seq {
			w.image.put(i, e.sector, e.seq)
		}
	}
}

// failed records the first error after which nothing can be promised any more. Lack of
// space is none: what has found none is tried again.
func (w *writecache) failed(err error, what string) error {
	if blk.StatusOf(err) == blk.NoSpace {
		return err
	}
	w.mu.Lock()
	first := w.err == nil
	if first {
		w.err = err
	}
	w.mu.Unlock()
	w.wait.Wake()
	if first {
		w.t.Log().Error("writecache: "+what+"; writes and flushes fail until the table is loaded again", "error", err)
		w.queue.Queue(w.passWork) // for the writes that wait for a free block
	}
	return err
}

// takeDiscards makes the blocks of discards leave the cache, and returns the discards.
// Those of blocks that are being written back wait for that: what is copied must not
// reach the origin after them.
func (w *writecache) takeDiscards() (ready dm.CloneList) {
	all := w.discards.Take()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.held = false
	for c := all.Pop(); c != nil; c = all.Pop() {
		if w.err == nil && w.discard(c.Sector, c.Sector+c.Sectors) {
			w.discards.Push(c)
		} else {
			ready.Push(c)
		}
	}
	return ready
}

// discard makes the blocks of a range leave the cache, unless some of them are being
// written back. Called with mu held.
func (w *writecache) discard(from, to uint64) (busy bool) {
	var found []int32
	w.eachIn(from, to, func(i int32) {
		switch w.entries.all[i].state {
		case writing, filling:
			busy, w.held = true, true
		case live:
			found = append(found, i)
		}
	})
	if busy {
		return true
	}
	for _, i := range found {
		w.entries.all[i].state = leaving
		w.entries.unlink(i)
	}
	w.leaving = append(w.leaving, found...)
	return false
}

// eachIn calls f for the entries of a range of sectors.
func (w *writecache) eachIn(from, to uint64, f func(int32)) {
	if t := w.entries; (to-from)/w.blockSectors < uint64(len(t.all)) {
		for at := from; at < to; at += w.blockSectors {
			for i := t.find(at); i != none; i = t.from(t.all[i].next, at) {
				f(i)
			}
		}
		return
	}
	for i := range w.entries.all {
		if e := &w.entries.all[i]; e.state != free && from <= e.sector && e.sector < to {
			f(int32(i))
		}
	}
}

// takeDropped takes over the entries whose first write has failed.
func (w *writecache) takeDropped() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.leaving = append(w.leaving, w.inbox.dropped...)
	w.inbox.dropped = nil
}

// retire frees the blocks that leave the cache, once nobody reads or writes them any
// more and the metadata on disk do not have them.
func (w *writecache) retire() error {
	if len(w.leaving) == 0 {
		return nil
	}
	w.mu.Lock()
	err := w.err
	reads, writes := w.reads.seal(), w.writes.seal()
	w.mu.Unlock()
	w.until(func() bool { return w.reads.n[reads] == 0 && w.writes.n[writes] == 0 })
	if err != nil {
		return err
	}
	if err := w.clearEntries(); err != nil {
		w.tryLater(err)
		return w.failed(err, "the metadata cannot be written")
	}
	w.free()
	return nil
}

// clearEntries has the metadata on disk forget the blocks that leave the cache. Entries
// that have never been there need no write.
func (w *writecache) clearEntries() error {
	for _, i := range w.leaving {
		if _, seq := w.image.get(i); seq != freeSeq {
			w.image.putSeq(i, freeSeq)
			w.unclear = true
		}
	}
	if !w.unclear {
		return nil
	}
	err := w.writeChanges()
	w.unclear = err != nil
	return err
}

// free makes the blocks that have left the cache free.
func (w *writecache) free() {
	w.mu.Lock()
	for _, i := range w.leaving {
		w.entries.remove(i)
		w.freeSet.add(i)
	}
	w.leaving = w.leaving[:0]
	w.writing = 0
	for _, r := range w.runs {
		w.writing += int(r.blocks)
	}
	w.mu.Unlock()
	w.wait.Wake()
}

// tryLater makes a pass after a time if err was for lack of space, and ends what waits
// for free blocks.
func (w *writecache) tryLater(err error) {
	if blk.StatusOf(err) != blk.NoSpace {
		return
	}
	w.retryAt = w.env.Now() + retryTime
	w.queue.QueueAfter(w.lateWork, retryTime)
	w.mu.Lock()
	blocked := w.inbox.blocked.Take()
	w.giveUps++
	w.mu.Unlock()
	w.wait.Wake()
	for c := blocked.Pop(); c != nil; c = blocked.Pop() {
		c.Complete(blk.NoSpace)
	}
}

// endDiscards sends discards to the origin once their blocks have left the cache.
func (w *writecache) endDiscards(list dm.CloneList, err error) {
	w.mu.Lock()
	if err == nil {
		err = w.err
	}
	w.mu.Unlock()
	for c := list.Pop(); c != nil; c = list.Pop() {
		if err != nil {
			c.Complete(blk.StatusOf(err))
			continue
		}
		c.SetDev(w.origin)
		c.Issue()
	}
}

// mapAgain maps the reads and writes that have waited for a block.
func (w *writecache) mapAgain() {
	w.mu.Lock()
	list := w.inbox.waiting.Take()
	if w.freeSet.size > 0 || w.err != nil {
		blocked := w.inbox.blocked.Take()
		list.Append(&blocked)
	}
	w.mu.Unlock()
	for c := list.Pop(); c != nil; c = list.Pop() {
		switch w.mapData(c) {
		case dm.Remapped:
			c.Issue()
		case dm.Kill:
			c.Complete(blk.IOErr)
		}
	}
}
