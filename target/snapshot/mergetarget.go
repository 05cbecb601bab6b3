package snapshot

import (
	"udm/blk"
	"udm/dm"
)

// mergeTarget is a constructed target "snapshot-merge". It is the way to the
// origin as well: what has no exception is read and written there.
type mergeTarget struct{ *snapshot }

func (t mergeTarget) Map(c *dm.Clone) dm.Outcome {
	switch c.Op {
	case blk.Flush:
		c.Dev = t.origin.Device
		if c.Num != 0 {
			c.Dev = t.cow.Device
		}
		return dm.Remapped
	case blk.Discard:
		c.Complete(blk.OK) // would have to be repeated in two places
		return dm.Submitted
	}
	if n := t.group.room(c.Sector); c.Sectors > n {
		c.Accept(n) // only where cutAt says so
	}
	if out, ok := t.mapException(c); ok {
		return out
	}
	c.Dev = t.origin.Device
	if c.Op == blk.Write {
		return t.group.write(c)
	}
	return dm.Remapped
}

// mapException maps what has an exception. Writes to the run that is being
// merged wait, aimed at the origin already; the other writes are tracked, for
// the merge to wait for.
func (t mergeTarget) mapException(c *dm.Clone) (dm.Outcome, bool) {
	if !t.has(flagValid) {
		return 0, false
	}
	b, m := t.body.Load(), t.merge
	chunk := c.Sector >> b.shift
	m.mu.Lock()
	defer m.mu.Unlock()
	where, ok := b.complete.lookup(chunk)
	if !ok {
		return 0, false
	}
	if c.Op == blk.Write && chunk-m.first < m.count {
		c.Dev = t.origin.Device
		m.queued.Push(c)
		return dm.Submitted, true
	}
	b.remap(c, where)
	c.Dev = t.cow.Device
	if c.Op == blk.Write {
		t.tracked.add(c.PerIO.(*perIO), chunk)
	}
	return dm.Remapped, true
}

// Presuspend stops the merge after the round under way.
func (t mergeTarget) Presuspend() { t.merge.stop() }

// Resume goes on with the merge.
func (t mergeTarget) Resume() {
	t.snapshot.Resume()
	t.cutAt(t.group.members.Load().boundary)
	t.merge.start()
}
