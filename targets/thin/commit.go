package thin

import (
	"sync/atomic"
	"syscall"

	"udm/blk"
	"udm/dm"
	"udm/env"
	"udm/pdata"
)

// writing is the commit of a sealed transaction, which is written beside the owner.
// While it is under way passes go on with the next transaction. All other works of
// the owner wait for its end first ([pool.call]).
//
//	owner  │ pass ─ commitIfNeeded ─ startCommit    pass, pass …     pass ─ finishCommit
//	       │                              │                           ▲
//	commit │                              └─► data flushed, written ──┘
//
// The fields are the owner's, and the commit's from startCommit until done is set.
type writing struct {
	queue env.Queue
	work  *env.Work // writeCommit
	ended env.Wait  // wakes when done is set

	sealed    *pdata.Sealed // nil: no commit is under way
	volumes   []*volume     // changed in it
	flushes   dm.CloneList  // to be issued when it is durable
	completed dm.CloneList  // to be ended then
	err       error         // its outcome
	done      atomic.Bool
}

func (p *pool) initCommit() {
	w := &p.writing
	w.queue, w.work, w.ended = p.env.NewQueue("dm-thin-commit"), env.NewWork(p.writeCommit), p.env.NewWait()
}

// commitIfNeeded ends a pass: a commit starts if bios wait for one, or if the last one
// was over a second ago. Bios that come while one is being written wait for the next:
// they share it.
func (p *pool) commitIfNeeded() {
	t := &p.transaction
	due := p.env.Now()-t.lastCommit > commitPeriod
	waiting := !t.flushes.Empty() || !t.completed.Empty()
	if p.writing.sealed == nil && (waiting || due && (t.freed || p.md.Changed())) {
		p.startCommit()
	}
}

func (p *pool) startCommit() {
	w, t := &p.writing, &p.transaction
	w.flushes, w.completed = t.flushes.Take(), t.completed.Take()
	switch {
	case p.short.meta:
		w.awaitSpace()
		return
	case p.mode() >= modeOutOfMetadata:
		w.fail()
		return
	}
	c, err := p.md.Seal()
	if err != nil {
		p.metadataFailed(err)
		w.fail()
		return
	}
	w.sealed, w.volumes, t.changed = c, t.changed, w.volumes[:0]
	t.freed, t.lastCommit = false, p.env.Now()
	w.queue.Queue(w.work)
}

// writeCommit writes the sealed transaction.
func (p *pool) writeCommit() {
	w := &p.writing
	w.err = p.published.commits.count(p.env, w.sealed.Write)
	w.done.Store(true)
	w.ended.Wake()
	p.wake()
}

// awaitCommit waits until no commit is being written. The owner does nothing
// meanwhile.
func (p *pool) awaitCommit() {
	if p.writing.sealed != nil {
		p.writing.ended.Until(p.writing.done.Load)
		p.finishCommit()
	}
}

// finishCommit is called when the sealed transaction has been written, or could not
// be.
func (p *pool) finishCommit() {
	w := &p.writing
	c := w.sealed
	w.sealed = nil
	w.done.Store(false)
	switch err := p.md.Finish(c, w.err); err {
	case nil:
		p.settle(w.volumes)
		p.freeAgain()
		w.end()
	case blk.NoSpace:
		p.transaction.changed = append(p.transaction.changed, w.volumes...)
		p.metadataFull()
		w.awaitSpace()
	default:
		p.metadataFailed(err)
		w.fail()
	}
}

// freeAgain looks at what is free after a commit beside the owner. The next
// transaction may have taken all that there is, and may give some back.
func (p *pool) freeAgain() {
	if p.md.FreeMetadata() == 0 {
		_ = p.commit()
	} else {
		p.spaceFound()
	}
}

// fail fails the bios that waited for a commit.
func (w *writing) fail() {
	endAll(w.completed.Take(), blk.IOErr)
	endAll(w.flushes.Take(), blk.IOErr)
}

// awaitSpace lets them wait for space.
func (w *writing) awaitSpace() {
	awaitSpace(w.flushes.Take())
	awaitSpace(w.completed.Take())
}

// end completes them, or issues them.
func (w *writing) end() {
	flushes := w.flushes.Take()
	endAll(w.completed.Take(), blk.OK)
	for c := flushes.Pop(); c != nil; c = flushes.Pop() {
		if c.Op == blk.Flush {
			c.Complete(blk.OK) // the commit has flushed the data device
		} else {
			c.Issue()
		}
	}
}

// commit makes all changes durable and waits for that. [blk.NoSpace] means that the
// commit waits for space. After any other error the pool is in a mode in which the
// metadata cannot be changed.
func (p *pool) commit() error {
	p.awaitCommit()
	if p.short.meta {
		return blk.NoSpace
	}
	return p.tryCommit()
}

// tryCommit commits even if the last attempt found no space.
func (p *pool) tryCommit() error {
	p.awaitCommit()
	if p.mode() >= modeOutOfMetadata {
		return syscall.EINVAL
	}
	switch err := p.commitMetadata(); err {
	case nil:
		p.committed()
		return nil
	case blk.NoSpace:
		p.metadataFull()
		return err
	default:
		p.metadataFailed(err)
		return err
	}
}

// committed is called when everything is durable.
func (p *pool) committed() {
	w, t := &p.writing, &p.transaction
	w.volumes, t.changed = t.changed, w.volumes[:0]
	t.freed, t.lastCommit = false, p.env.Now()
	p.settle(w.volumes)
	p.short.meta = false
	if p.md.FreeMetadata() == 0 && !p.mode().readOnly() {
		p.setMode(modeOutOfMetadata)
	}
	p.spaceFound()
}

// settle tells changed volumes what is durable. Those that have changed again belong
// to the running transaction.
func (p *pool) settle(volumes []*volume) {
	for _, v := range volumes {
		again := v.td.Changed()
		v.changed.Store(again)
		if again {
			p.transaction.changed = append(p.transaction.changed, v)
		}
	}
	clear(volumes)
}
