package cache

import (
	"errors"

	"udm/blk"
)

// wake schedules a pass.
func (c *cache) wake() { c.store.queue.Queue(c.worker) }

// periodic makes a pass once a second. It ticks the policy, and sees whether there was I/O
// since the last pass: asking for the time at each end of a bio would cost a quarter of a hit.
func (c *cache) periodic() {
	c.mu.Lock()
	stopped := c.stopped
	if !stopped {
		c.policy.Tick(c.env.Now())
	}
	c.mu.Unlock()
	if !stopped {
		c.unused = !c.used.Swap(false) && c.busy.Load() == 0
		c.store.queue.QueueAfter(c.waker, commitPeriod)
		c.pass()
	}
}

// pass is the owner's work: it serves everything that became ready since the last pass.
func (c *cache) pass() {
	for {
		c.mu.Lock()
		ms := c.ready
		c.ready = nil
		c.mu.Unlock()
		if len(ms) == 0 {
			break
		}
		for _, m := range ms {
			m.step()
		}
	}
	c.beginAgain()
	c.startSome()
	c.commitIfNeeded()
}

// beginAgain makes the cache writable when there is space for that.
func (c *cache) beginAgain() {
	c.mu.Lock()
	again := !c.begun && !c.stopped
	c.mu.Unlock()
	if again {
		c.begin()
	}
}

// startSome begins work in the background as far as the threshold allows.
func (c *cache) startSome() {
	now := c.env.Now()
	if c.mode == Passthrough || now < c.pauseUntil {
		return
	}
	for {
		c.mu.Lock()
		most := max(1, c.threshold.Load()/int64(c.blockSectors))
		idle := c.unused && !c.used.Load() && c.busy.Load() == 0 &&
			int64(c.copying+1)*int64(c.blockSectors) <= c.threshold.Load()
		if c.stopped || !c.begun || int64(c.copying) >= most {
			c.mu.Unlock()
			return
		}
		w, ok := c.policy.Next(idle)
		c.mu.Unlock()
		if !ok {
			return
		}
		c.start(w)
	}
}

// commitIfNeeded ends a pass: it commits if something waits for that, or if the last
// commit was over a second ago.
func (c *cache) commitIfNeeded() {
	c.mu.Lock()
	bios := c.deferred.Take()
	changed := c.changed
	c.mu.Unlock()
	waiting := !bios.Empty() || len(c.committing) > 0 || !c.answers.Empty()
	if !waiting && !(changed && c.env.Now()-c.lastCommit >= commitPeriod) {
		return
	}
	err := c.commit()
	for b := bios.Pop(); b != nil; b = bios.Pop() {
		if err == nil {
			b.Issue()
		} else {
			b.Complete(blk.StatusOf(err))
		}
	}
	answers := c.answers.Take()
	for b := answers.Pop(); b != nil; b = answers.Pop() {
		b.Complete(blk.StatusOf(err))
	}
	if errors.Is(err, blk.NoSpace) { // the next pass tries again
		c.saved(len(c.committing))
		return
	}
	c.committed(err == nil)
}

// committed finishes the migrations that waited for a commit.
func (c *cache) committed(success bool) {
	ms := c.committing
	c.committing = nil
	c.saved(0)
	for _, m := range ms {
		c.finish(m, success)
	}
}

// saved notes how many migrations a commit has left, for which a suspend does not wait.
func (c *cache) saved(unsaved int) {
	c.mu.Lock()
	c.unsaved = unsaved
	c.mu.Unlock()
	c.quiet.Wake()
}

// errLost says that nothing can be flushed any more.
var errLost = errors.New("changes of the cache's metadata were lost")

// commit makes all changes of the metadata durable. After an error other than
// [blk.NoSpace] they are lost.
func (c *cache) commit() error {
	c.mu.Lock()
	changed, lost := c.changed, c.store.lost.Load()
	c.mu.Unlock()
	c.lastCommit = c.env.Now()
	switch {
	case lost:
		return errLost
	case !changed:
		return nil
	}
	err := c.store.md.Commit()
	switch {
	case err == nil:
		c.mu.Lock()
		c.changed = false
		c.mu.Unlock()
	case !errors.Is(err, blk.NoSpace):
		c.metadataFailed(err)
	}
	return err
}

// flushCopies makes durable what was copied, before the metadata says where it is.
func (c *cache) flushCopies() error {
	if c.flushFast {
		if err := blk.FlushDevice(c.env, c.fast); err != nil {
			return err
		}
		c.flushFast = false
	}
	if c.flushOrig {
		if err := blk.FlushDevice(c.env, c.origin); err != nil {
			return err
		}
		c.flushOrig = false
	}
	return nil
}

// minFree is the number of free metadata blocks below which a change is preceded by a
// commit, which frees those that the last changes have replaced.
const minFree = 16

// changeMetadata makes a change and reports whether it was made.
func (c *cache) changeMetadata(change func() error) bool {
	if c.isReadOnly() || c.store.md.Free() < minFree && c.commit() != nil {
		return false
	}
	c.mu.Lock()
	c.changed = true
	c.mu.Unlock()
	err := change()
	if err != nil && !errors.Is(err, blk.NoSpace) {
		c.metadataFailed(err)
	}
	return err == nil
}

func (c *cache) isReadOnly() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.readOnly
}

// metadataFailed goes back to the last commit and changes the metadata no more. What is
// in the cache stays there, but as long as the last changes are not on the disk nothing
// can be promised to be: flushes fail.
func (c *cache) metadataFailed(reason error) {
	log, md := c.t.Log(), c.store.md
	log.Error("metadata operation failed; going back to the last commit", "reason", reason)
	if err := md.Abort(); err != nil {
		log.Error("the last commit cannot be read", "reason", err)
	} else if err := md.SetNeedsCheck(); err != nil {
		log.Error("needs_check could not be written", "reason", err)
	}
	md.SetReadOnly()
	c.setReadOnly()
}

func (c *cache) setReadOnly() {
	c.mu.Lock()
	was := c.readOnly
	c.readOnly = true
	if c.changed {
		c.store.lost.Store(true)
	}
	c.policy.StopMigrations()
	c.mu.Unlock()
	if !was {
		c.t.Log().Warn("the cache goes to read-only mode; check its metadata with udm cache check")
		c.t.Event()
	}
}
