package writecache

import (
	"errors"
	"fmt"
	"sync"

	"udm/blk"
	"udm/dm"
)

const readUnit = 1 << 20 // bytes of metadata that are read at a time

// Preresume reads the metadata before the first I/O. Afterwards memory knows more than
// the disk.
func (w *writecache) Preresume() error {
	if w.loaded {
		return nil
	}
	u := usersOf(w.t)
	u.mu.Lock()
	old := u.of[w.place()]
	u.of[w.place()] = w
	u.mu.Unlock()
	if old == nil || w.formatted || !w.inherit(old) {
		if err := w.load(); err != nil {
			errno := dm.ErrnoOf(err)
			if st, ok := err.(blk.Status); ok {
				errno = st.Errno()
			}
			return dm.Because(dm.Errorf(errno, "%v", err), "the writecache cannot be resumed")
		}
	}
	w.loaded = true
	return nil
}

// users are the tables that have used caches last. If one of them could not commit, the
// next one takes over what only its memory knows: a flush must not succeed after
// something was lost.
type users struct {
	mu sync.Mutex
	of map[place]*writecache // guarded by mu
}

type place struct {
	dev   dm.Number
	start uint64
}

type usersKey struct{}

func usersOf(t *dm.Target) *users {
	return t.Shared(usersKey{}, func() any { return &users{of: map[place]*writecache{}} }).(*users)
}

func (w *writecache) place() place { return place{w.fast.Number, w.start} }

// inherit takes over the state of a suspended table of the same devices if not all of it
// is on the disk.
func (w *writecache) inherit(old *writecache) bool {
	old.mu.Lock()
	defer old.mu.Unlock()
	durable := old.err == nil && old.fresh == 0 && old.committed == old.seq && !old.overwrote && len(old.leaving) == 0
	same := old.super.Blocks == w.super.Blocks && old.super.BlockSize == w.super.BlockSize && old.origin.Number == w.origin.Number
	if !old.stopped || !old.loaded || durable || !same {
		return false
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.image, w.entries, w.freeSet = old.image, old.entries, old.freeSet
	w.seq, w.committed, w.fresh, w.overwrote, w.due = old.seq, old.committed, old.fresh, old.overwrote, true
	w.leaving, w.unclear = append(old.leaving, old.inbox.dropped...), old.unclear
	old.entries, old.loaded = nil, false
	return true
}

// load reads the metadata again, because the table before this one may have changed them,
// and frees what a power cut has left behind.
func (w *writecache) load() error {
	im := newImage(&w.super)
	for at := 0; at < len(im.p); at += readUnit {
		p := im.p[at:min(at+readUnit, len(im.p))]
		if err := blk.ReadSectors(w.env, w.fast, p, w.start+uint64(at)/blk.SectorSize); err != nil {
			return err
		}
	}
	s, fresh, err := decodeSuperblock(im.p)
	if err != nil {
		return err
	}
	if fresh || s.Blocks != w.super.Blocks || s.BlockSize != w.super.BlockSize {
		return errors.New("the device was formatted again since the table was loaded; load the table again")
	}
	w.mu.Lock()
	w.image, w.super = im, *s
	w.entries, w.freeSet = newEntries(s.Blocks, w.blockShift()), newFreeSet(s.Blocks)
	w.seq, w.committed, w.cleaned = s.Seq, s.Seq, 0
	w.overwrote = true // what was read may be only in a volatile cache: the first flush flushes it
	changed, err := w.readEntries()
	w.mu.Unlock()
	if err == nil && changed {
		err = w.writeChanges()
	}
	return err
}

// readEntries fills the tables from the image. Entries that were not committed and those
// with a newer one of the same sector become free, in the image, too. Called with mu
// held.
func (w *writecache) readEntries() (changed bool, err error) {
	for i := range int32(w.super.Blocks) {
		sector, seq := w.image.get(i)
		old := none
		if seq < w.committed {
			old = w.entries.find(sector)
		}
		switch {
		case seq >= w.committed && seq == freeSeq:
			w.freeSet.add(i)
			continue
		case seq >= w.committed:
			w.freeSet.add(i)
			w.image.putSeq(i, freeSeq)
		case old == none:
			w.keep(i, sector, seq)
			continue
		case w.entries.all[old].seq == seq:
			return false, fmt.Errorf("two entries, %d and %d, are of sector %d with sequence count %d; the metadata are damaged", old, i, sector, seq)
		case w.entries.all[old].seq > seq:
			w.freeSet.add(i)
			w.image.putSeq(i, freeSeq)
		default:
			w.entries.unlink(old)
			w.entries.remove(old)
			w.freeSet.add(old)
			w.image.putSeq(old, freeSeq)
			w.keep(i, sector, seq)
		}
		changed = true
	}
	return changed, nil
}

// keep makes i a block of the cache that has been there before.
func (w *writecache) keep(i int32, sector, seq uint64) {
	e := &w.entries.all[i]
	e.sector, e.seq, e.state, e.age = sector, seq, live, w.env.Now()
	w.entries.insert(i)
}

// Resume lets blocks be written back.
func (w *writecache) Resume() {
	w.mu.Lock()
	w.stopped = false
	w.mu.Unlock()
	w.queue.Queue(w.passWork)
	if w.maxAge >= 0 {
		w.queue.QueueAfter(w.ageWork, max(w.maxAge/ageParts, soon))
	}
}

// Postsuspend commits, and waits for what is being written back.
func (w *writecache) Postsuspend() {
	w.mu.Lock()
	all := w.flushLast
	w.stopped, w.flushLast = true, false
	w.mu.Unlock()
	if !w.loaded {
		return
	}
	w.queue.Cancel(w.ageWork)
	var err error
	if all {
		err = w.writeBackAll()
	} else {
		w.call(func() { err = w.commit() })
	}
	w.until(func() bool { return len(w.runs) == 0 })
	w.call(w.verify) // behind the pass that has ended the last run
	w.queue.Cancel(w.autoWork)
	w.queue.Cancel(w.lateWork)
	if err != nil {
		w.t.Log().Error("writecache: the device was suspended, but not all data were written", "error", err)
	}
}
