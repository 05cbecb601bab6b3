package clone

import (
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"udm/blk"
	"udm/dm"
	"udm/env"
	"udm/targets/clone/clonemeta"
)

const commitPeriod = time.Second

// call runs fn on the owner.
func (c *clone) call(fn func()) { env.Call(c.queue, c.wait, fn) }

// tick makes a pass once a second, in which regions are copied whatever I/O is under way.
func (c *clone) tick() {
	c.paused = false
	c.hydrateSome(true)
	c.pass()
	if c.running {
		c.queue.QueueAfter(c.waker, commitPeriod)
	}
}

// pass is the owner's work.
func (c *clone) pass() {
	c.mu.Lock()
	writes, discards := c.inbox.writes.Take(), c.inbox.discards.Take()
	flushes := c.inbox.flushes.Take()
	c.mu.Unlock()
	for x := writes.Pop(); x != nil; x = writes.Pop() {
		c.write(x)
	}
	for x := discards.Pop(); x != nil; x = discards.Pop() {
		c.discard(x)
	}
	c.flushes.Append(&flushes)
	c.commitIfNeeded()
	c.hydrateSome(false)
}

// commitIfNeeded commits for the bios that wait for it, or because it is time to.
func (c *clone) commitIfNeeded() {
	due := c.uncommitted.Load() && c.target.Env().Now()-c.lastCommit >= commitPeriod
	if c.flushes.Empty() && c.completions.Empty() && !due {
		return
	}
	err := c.commit()
	if err != nil {
		st := blk.IOErr
		if err == blk.NoSpace {
			st = blk.NoSpace
		}
		c.completions.Append(&c.flushes)
		c.flushes = dm.CloneList{}
		for x := c.completions.Pop(); x != nil; x = c.completions.Pop() {
			x.Complete(st)
		}
		return
	}
	for x := c.completions.Pop(); x != nil; x = c.completions.Pop() {
		x.Complete(blk.OK)
	}
	for x := c.flushes.Pop(); x != nil; x = c.flushes.Pop() {
		x.Issue()
	}
}

// commit makes durable that regions are hydrated.
func (c *clone) commit() error {
	c.lastCommit = c.target.Env().Now()
	if !c.uncommitted.Load() {
		return nil
	}
	if mode(c.mode.Load()) != readWrite {
		return syscall.EPERM
	}
	err := c.commitAll()
	switch {
	case err == blk.NoSpace:
		return err
	case err != nil:
		c.fail(err)
		return err
	}
	c.uncommitted.Store(false)
	if c.hydrated.count.Load() == c.regions && !c.done.Swap(true) {
		c.target.Event()
	}
	return nil
}

func (c *clone) commitAll() error {
	if c.md.Waits() {
		if err := c.md.Commit(); err != nil {
			return err
		}
	}
	if len(c.dirty) > 0 {
		if err := c.md.Set(c.dirty); err != nil {
			return err
		}
		c.dirty = c.dirty[:0]
	}
	return c.md.Commit()
}

// fail goes to mode ro, or to mode fail if the metadata cannot be read again. What is
// hydrated stays so in memory.
func (c *clone) fail(err error) {
	to := readOnly
	c.target.Log().Error("clone: the metadata cannot be written; the device is read-only where it is not hydrated", "error", err)
	if err := c.md.Abort(); err != nil {
		to = failed
		c.target.Log().Error("clone: the metadata cannot be read again; the device fails", "error", err)
	}
	c.md.SetReadOnly()
	c.mode.Store(uint32(to))
	c.target.Event()
}

// hydrateSome starts copies of regions in the background. force: also while I/O is under
// way.
func (c *clone) hydrateSome(force bool) {
	if !c.running || c.paused || c.done.Load() || !c.enabled.Load() || mode(c.mode.Load()) != readWrite {
		return
	}
	for force || c.ios.Load() == 0 {
		room := int64(c.threshold.Load()) - c.hydrating.Load()
		run := c.nextRun(uint64(max(room, 0)))
		if run.Begin == run.End {
			return
		}
		c.begin(run).copy()
	}
}

// nextRun is the next regions to be copied as one, at most room of them.
func (c *clone) nextRun(room uint64) (run clonemeta.Run) {
	most := min(room, uint64(max(c.batch.Load(), 1)))
	if most == 0 {
		return run
	}
	r := c.nextMissing(c.next)
	if r >= c.regions {
		r = c.nextMissing(0)
	}
	if r >= c.regions {
		return run
	}
	run = clonemeta.Run{Begin: r, End: r + 1}
	for run.End < c.regions && run.End-run.Begin < most && !c.hydrated.has(run.End) && c.hydrations[run.End] == nil {
		run.End++
	}
	c.next = run.End
	return run
}

// nextMissing is the first region from r on that is neither hydrated nor on its way.
func (c *clone) nextMissing(r uint64) uint64 {
	for r = c.hydrated.missing(r); r < c.regions && c.hydrations[r] != nil; {
		r = c.hydrated.missing(r + 1)
	}
	return r
}

func (c *clone) Status(kind dm.StatusKind, flags dm.StatusFlags) string {
	if kind == dm.TableText {
		return (&Line{Metadata: c.metadata.Name(), Dest: c.dest.Name(), Source: c.source.Name(), words: c.words}).String()
	}
	var s Status
	c.call(func() {
		if flags&dm.StatusNoflush == 0 && c.running {
			_ = c.commit() // a failure shows in the mode
		}
		s = c.status()
	})
	return s.String()
}

func (c *clone) status() Status {
	m := mode(c.mode.Load())
	if m == failed {
		return Status{State: Fail}
	}
	used, total := c.md.Space()
	return Status{Used: used, Total: total, RegionSectors: 1 << c.shift, Hydrated: c.hydrated.count.Load(), Regions: c.regions,
		Hydrating: uint64(c.hydrating.Load()), NoHydration: !c.enabled.Load(), NoPassdown: !c.passdown.Load(),
		Threshold: c.threshold.Load(), BatchSize: c.batch.Load(), ReadOnly: m == readOnly}
}

// Message carries out a message.
func (c *clone) Message(args []string) (string, error) {
	word := strings.ToLower(args[0])
	switch word {
	case "enable_hydration":
		c.enabled.Store(true)
		c.queue.Queue(c.work)
		return "", nil
	case "disable_hydration":
		c.enabled.Store(false)
		return "", nil
	}
	if len(args) != 2 {
		return "", invalid("wrong number of message arguments")
	}
	to := map[string]*atomic.Uint32{"hydration_threshold": &c.threshold, "hydration_batch_size": &c.batch}[word]
	if to == nil {
		return "", dm.Errorf(syscall.EINVAL, "Unsupported message `%s'", args[0])
	}
	n, err := dm.ParseUint32(args[1])
	if err != nil {
		return "", err
	}
	to.Store(n)
	c.queue.Queue(c.work)
	return "", nil
}
