package clone

import (
	"udm/blk"
	"udm/dm"
	"udm/targets/clone/clonemeta"
	"udm/targets/internal/kcopyd"
)

// hydration is regions that are on their way to the destination. It belongs to the owner.
type hydration struct {
	c     *clone
	run   clonemeta.Run
	job   kcopyd.Job
	bios  dm.CloneList // wait for its end
	whole *dm.Clone    // a write that covers the region, in place of a copy; nil: none
}

// begin makes a hydration of regions, none of which is in another one.
func (c *clone) begin(run clonemeta.Run) *hydration {
	h := &hydration{c: c, run: run}
	for r := run.Begin; r < run.End; r++ {
		c.hydrations[r] = h
	}
	c.hydrating.Add(int64(run.End - run.Begin))
	h.job.Done = func(j *kcopyd.Job) { h.ended(statusOf(j)) }
	return h
}

// copy copies the regions from the source.
func (h *hydration) copy() {
	c, start := h.c, h.run.Begin<<h.c.shift
	h.job.From = kcopyd.Place{Dev: c.from, Sector: start}
	h.job.SetTo(kcopyd.Place{Dev: c.to, Sector: start})
	h.job.Sectors = min(h.run.End<<c.shift, c.target.Len) - start
	c.copier.Copy(&h.job)
}

func statusOf(j *kcopyd.Job) blk.Status {
	switch {
	case j.NoSpace:
		return blk.NoSpace
	case j.Failed():
		return blk.IOErr
	}
	return blk.OK
}

// overwrite lets a write that covers the region go to the destination. It completes after
// the bit is set.
func (h *hydration) overwrite(x *dm.Clone) {
	h.whole = x
	h.c.copier.Prepare(&h.job)
	x.Redirect(h.overwritten)
	x.Issue()
}

func (h *hydration) overwritten(b *blk.Bio) {
	switch b.Status() {
	case blk.OK:
	case blk.NoSpace:
		h.job.WriteFailed, h.job.NoSpace = 1, true
	default:
		h.job.WriteFailed = 1
	}
	h.c.copier.Fire(&h.job)
}

// ended runs on the owner when the regions are on the destination, or not.
func (h *hydration) ended(st blk.Status) {
	c := h.c
	for r := h.run.Begin; r < h.run.End; r++ {
		delete(c.hydrations, r)
	}
	if st == blk.OK && mode(c.mode.Load()) != readWrite {
		st = blk.IOErr
	}
	if st == blk.OK {
		c.set(h.run)
	} else {
		c.paused = true
		c.target.Log().Warn("clone: hydration failed", "region", h.run.Begin, "error", st)
	}
	if x := h.whole; x != nil {
		x.Restore()
		x.Rearm()
		c.overwritten(x, st)
	}
	for x := h.bios.Pop(); x != nil; x = h.bios.Pop() {
		c.goOn(x, st)
	}
	c.hydrating.Add(-int64(h.run.End - h.run.Begin))
	c.wait.Wake()
	c.queue.Queue(c.work)
}

// set makes regions hydrated in memory.
func (c *clone) set(run clonemeta.Run) {
	c.uncommitted.Store(true) // first, so that a FUA write that finds the bit waits for a commit
	for r := run.Begin; r < run.End; r++ {
		c.hydrated.add(r)
	}
	if n := len(c.dirty); n > 0 && c.dirty[n-1].End == run.Begin {
		c.dirty[n-1].End = run.End
		return
	}
	c.dirty = append(c.dirty, run)
}

// overwritten completes a write that has covered its region.
func (c *clone) overwritten(x *dm.Clone, st blk.Status) {
	if st == blk.OK && x.Flags&blk.FUA != 0 {
		c.completions.Push(x)
		return
	}
	x.Complete(st)
}

// goOn carries out what has waited for a hydration.
func (c *clone) goOn(x *dm.Clone, st blk.Status) {
	switch {
	case x.Op == blk.Discard:
		c.discard(x) // which needs no copy
	case st != blk.OK:
		x.Complete(st)
	default:
		c.issue(x)
	}
}

// issue sends a write to its hydrated region, a FUA write after a commit.
func (c *clone) issue(x *dm.Clone) {
	if x.Flags&blk.FUA != 0 && c.uncommitted.Load() {
		c.flushes.Push(x)
		return
	}
	x.Issue()
}

// write carries out a write to a region that was not hydrated when it was mapped.
func (c *clone) write(x *dm.Clone) {
	r := x.Sector >> c.shift
	h := c.hydrations[r]
	switch {
	case h != nil:
		h.bios.Push(x)
	case c.hydrated.has(r):
		c.issue(x)
	case mode(c.mode.Load()) != readWrite:
		x.Complete(blk.IOErr)
	case x.Sectors == 1<<c.shift:
		c.begin(clonemeta.Run{Begin: r, End: r + 1}).overwrite(x)
	default:
		h := c.begin(clonemeta.Run{Begin: r, End: r + 1})
		h.bios.Push(x)
		h.copy()
	}
}

// discard carries out a discard: the regions that it covers are hydrated without a copy. As
// in the kernel, a last region that is shorter than the others is not.
func (c *clone) discard(x *dm.Clone) {
	run := clonemeta.Run{Begin: (x.Sector + 1<<c.shift - 1) >> c.shift, End: x.EndSector() >> c.shift}
	switch {
	case run.Begin >= run.End:
		x.Complete(blk.OK)
	case c.hydrated.all(run.Begin, run.End):
		c.passDown(x, run)
	case mode(c.mode.Load()) != readWrite:
		x.Complete(blk.OK)
	case c.busy(run) != nil:
		c.busy(run).bios.Push(x)
	default:
		c.set(run)
		c.passDown(x, run)
	}
}

// busy is a hydration of one of the regions, if there is one.
func (c *clone) busy(run clonemeta.Run) *hydration {
	if uint64(len(c.hydrations)) < run.End-run.Begin {
		for r, h := range c.hydrations {
			if r >= run.Begin && r < run.End {
				return h
			}
		}
		return nil
	}
	for r := run.Begin; r < run.End; r++ {
		if h := c.hydrations[r]; h != nil {
			return h
		}
	}
	return nil
}

// passDown sends a discard of whole regions to the destination.
func (c *clone) passDown(x *dm.Clone, run clonemeta.Run) {
	if !c.passdown.Load() {
		x.Complete(blk.OK)
		return
	}
	x.SetDev(c.dest)
	x.Sector = run.Begin << c.shift
	x.Sectors = run.End<<c.shift - x.Sector
	x.Issue()
}
