package clone

import (
	"sync"
	"syscall"

	"udm/dm"
	"udm/pdata"
	"udm/targets/clone/clonemeta"
)

// users are the clones that have used metadata last. Where one of them could not commit,
// the next table of its device takes over which regions are hydrated: what was written to
// them was acknowledged.
type users struct {
	mu sync.Mutex
	of map[dm.Number]*clone // by metadata device; guarded by mu
}

type usersKey struct{}

func usersOf(t *dm.Target) *users {
	return t.Shared(usersKey{}, func() any { return &users{of: map[dm.Number]*clone{}} }).(*users)
}

// replace makes c the user of its metadata and returns the one before; nil: it was c, or
// there was none.
func (u *users) replace(c *clone) *clone {
	u.mu.Lock()
	defer u.mu.Unlock()
	old := u.of[c.metadata.Number]
	u.of[c.metadata.Number] = c
	if old == c {
		return nil
	}
	return old
}

// leave forgets c, unless another table has to take over from it.
func (u *users) leave(c *clone) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.of[c.metadata.Number] == c && !c.uncommitted.Load() && c.before == nil {
		delete(u.of, c.metadata.Number)
	}
}

// Preresume reads again what another table has written to the metadata since this one
// was loaded, and takes over what that one could not write.
func (c *clone) Preresume() (err error) {
	c.call(func() {
		c.follow(usersOf(c.target).replace(c))
		if mode(c.mode.Load()) != readWrite || c.uncommitted.Load() {
			return
		}
		if err = c.loadAgain(); err == nil {
			c.takeOver()
		}
	})
	if err != nil {
		return dm.Because(dm.Errorf(pdata.ErrnoOf(err), "%v", err), "the clone device cannot be resumed")
	}
	return nil
}

// follow remembers what the table before knows and the metadata may not. That table is
// suspended. New metadata take over nothing.
func (c *clone) follow(old *clone) {
	switch {
	case old == nil || old.target.Device() != c.target.Device() || c.md.Fresh():
	case old.dest.Number != c.dest.Number || old.source.Number != c.source.Number || old.regions != c.regions:
	case old.uncommitted.Load():
		c.before = &old.hydrated
	default:
		c.before = old.before
	}
}

// loadAgain reads the metadata again. What was read is durable before the first flush
// answers: the table before may have failed to flush it, or the process was killed.
func (c *clone) loadAgain() error {
	if err := c.md.Abort(); err != nil {
		return err
	}
	if s := c.md.Super(); s.TargetSize != c.target.Len || s.RegionSize != 1<<c.shift {
		return dm.Errorf(syscall.EINVAL, "the metadata are those of another device since the table was loaded")
	}
	if err := c.md.FlushRead(); err != nil {
		return err
	}
	return c.load()
}

// takeOver adds the regions that the table before has hydrated and could not commit.
func (c *clone) takeOver() {
	if c.before == nil {
		return
	}
	for r := range c.regions {
		if c.before.has(r) && !c.hydrated.has(r) {
			c.set(clonemeta.Run{Begin: r, End: r + 1})
		}
	}
	c.before = nil
}

// Resume begins to copy in the background.
func (c *clone) Resume() {
	c.call(func() { c.running = true })
	c.queue.QueueAfter(c.waker, 0)
}

// Postsuspend waits for copies under way and commits.
func (c *clone) Postsuspend() {
	c.call(func() { c.running = false })
	c.queue.Cancel(c.waker)
	c.wait.Until(func() bool { return c.hydrating.Load() == 0 })
	c.call(func() { _ = c.commit() }) // a failure has been logged
}
