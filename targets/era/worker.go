package era

import (
	"slices"
	"strings"
	"sync/atomic"
	"syscall"

	"udm/blk"
	"udm/dm"
	"udm/env"
	"udm/pdata"
	"udm/targets/era/erameta"
)

// call runs fn on the owner.
func (e *era) call(fn func()) { env.Call(e.queue, e.wait, fn) }

// pass is the owner's work: a step of a digest, and the writes that wait.
func (e *era) pass() {
	e.digestSome()
	e.mu.Lock()
	list := e.waiting.Take()
	e.mu.Unlock()
	if list.Empty() {
		return
	}
	st := blk.OK
	if err := e.mark(list); err != nil {
		st = statusOf(err)
	}
	for c := list.Pop(); c != nil; c = list.Pop() {
		if st != blk.OK {
			c.Complete(st)
		} else {
			c.Issue()
		}
	}
}

// statusOf is the status of a write whose block could not be marked.
func statusOf(err error) blk.Status {
	if err == blk.NoSpace {
		return blk.NoSpace
	}
	return blk.IOErr
}

// mark marks the blocks of all writes of a list.
func (e *era) mark(list dm.CloneList) error {
	blocks := e.scratch[:0]
	for c := list.First(); c != nil; c = *c.Link() {
		first, last := e.blocksOf(c)
		for b := uint64(first); b <= uint64(last); b++ {
			blocks = append(blocks, uint32(b))
		}
	}
	slices.Sort(blocks)
	blocks = slices.Compact(blocks)
	e.scratch = blocks
	err := e.change(func() (bool, error) { return e.md.Mark(blocks) })
	if err != nil {
		return err
	}
	m := e.marks.Load()
	for _, b := range blocks {
		m.add(b)
	}
	return nil
}

// change changes the metadata, and commits if fn says so. An error of fn that breaks the
// transaction, or of the commit, aborts it.
func (e *era) change(fn func() (commit bool, err error)) error {
	if err := e.commitWaiting(); err != nil {
		return err
	}
	commit, err := fn()
	if err == nil && commit {
		return e.commit()
	}
	e.recover()
	return err
}

// commitWaiting goes on with a commit that found no space, without which nothing can be
// changed.
func (e *era) commitWaiting() error {
	if e.md.Waits() {
		return e.commit()
	}
	return nil
}

func (e *era) commit() error {
	err := e.md.Commit()
	e.recover()
	return err
}

// recover goes back to the last commit if the transaction is broken. What has marks is
// in it, or is found in it again.
func (e *era) recover() {
	bad := e.md.Err()
	if bad == nil || e.md.Failed() {
		return
	}
	e.target.Log().Error("era: a transaction of the metadata failed", "error", bad)
	if err := e.md.Abort(); err != nil {
		e.target.Log().Error("era: the metadata cannot be read again", "error", err)
		return
	}
	e.marks.Store(newMarks(e.blocks))
	e.digesting = true
}

// digestSome does a step of digesting archived writesets, and comes again if there is
// more.
func (e *era) digestSome() {
	if !e.running || !e.digesting || e.commitWaiting() != nil {
		return
	}
	more, err := e.md.Digest()
	e.recover()
	if e.digesting = more && err == nil; e.digesting {
		e.queue.Queue(e.work)
	}
}

// rollover begins a new era durably.
func (e *era) rollover() error {
	err := e.change(func() (bool, error) { return true, e.md.Rollover() })
	return e.begun(err)
}

// begun replaces the marks after a change that has begun a new era.
func (e *era) begun(err error) error {
	if err == nil || err == blk.NoSpace {
		// Without space the new era is not durable yet, but nothing can be marked
		// in it before it is.
		e.marks.Store(newMarks(e.blocks))
		e.digesting = true
		e.queue.Queue(e.work)
	}
	return err
}

// Preresume begins a new era. The metadata are read again first: another table, or an
// offline tool, may have written them.
func (e *era) Preresume() (err error) {
	e.call(func() {
		if err = e.prepare(); err == nil {
			err = e.rollover()
		}
		e.running = err == nil
	})
	if err != nil {
		return dm.Because(dm.Errorf(pdata.ErrnoOf(err), "%v", err), "the era device cannot be resumed")
	}
	return nil
}

func (e *era) prepare() error {
	if e.blocks > erameta.MaxBlocks {
		return dm.Errorf(syscall.EINVAL, "Invalid number of origin blocks %d", e.blocks)
	}
	if err := e.md.Abort(); err != nil {
		return err
	}
	if e.md.BlockSize() != uint32(e.block) {
		return dm.Errorf(syscall.EINVAL, "the metadata have blocks of %d sectors", e.md.BlockSize())
	}
	return e.change(func() (bool, error) { return true, e.md.Resize(e.blocks) })
}

// Postsuspend ends the era.
func (e *era) Postsuspend() {
	var err error
	e.call(func() {
		e.running = false
		err = e.change(func() (bool, error) { return true, e.md.Archive() })
	})
	if err != nil {
		e.target.Log().Error("era: the device was suspended, and its era has not ended; it ends with the next resume", "error", err)
	}
}

// Message carries out a message.
func (e *era) Message(args []string) (string, error) {
	if len(args) != 1 {
		return "", invalid("incorrect number of message arguments")
	}
	var err error
	switch strings.ToLower(args[0]) {
	case "checkpoint":
		e.call(func() { err = e.rollover() })
	case "take_metadata_snap":
		e.call(func() { err = e.takeSnap() })
	case "drop_metadata_snap":
		e.call(func() { err = e.dropSnap() })
		return "", reply(err)
	default:
		return "", dm.Errorf(syscall.EINVAL, "unsupported message '%s'", args[0])
	}
	if err == nil {
		e.awaitWrites()
	}
	return "", reply(err)
}

func (e *era) takeSnap() error {
	if e.md.Held() != 0 {
		return invalid("metadata snapshot already exists")
	}
	return e.begun(e.change(func() (bool, error) { return true, e.md.Hold() }))
}

func (e *era) dropSnap() error {
	if e.md.Held() == 0 {
		return invalid("no snap to drop")
	}
	return e.change(func() (bool, error) { return true, e.md.Release() })
}

// reply gives an error of the metadata its errno.
func reply(err error) error {
	if err == nil {
		return nil
	}
	return dm.Errorf(pdata.ErrnoOf(err), "%v", err)
}

// awaitWrites waits for writes that may have looked at the marks of an earlier era.
func (e *era) awaitWrites() {
	var done atomic.Bool
	if e.writes.AddWork(func() {
		done.Store(true)
		e.wait.Wake()
	}) {
		e.wait.Until(done.Load)
	}
}
