package snapshot

import (
	"udm/blk"
	"udm/dm"
)

// mergeTarget is a constructed target "snapshot-merge". It also serves the origin:
// chunks without exceptions are read and written there.
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
		c.Complete(blk.OK) // ignored: it would have to be done in two places
		return dm.Submitted
	}
	if n := t.group.room(c.Sector); c.Sectors > n {
		c.Accept(n)
	}
	switch t.route(c) {
	case toCow:
		c.Dev = t.cow.Device
		return dm.Remapped
	case waits:
		return dm.Submitted
	case mustNotWait:
		c.Complete(blk.WouldBlock)
		return dm.Submitted
	case nowhere:
		return dm.Kill
	}
	c.Dev = t.origin.Device
	if c.Op == blk.Write {
		return t.group.write(c)
	}
	return dm.Remapped
}

// route is where a bio of a merging snapshot goes.
type route uint8

const (
	toOrigin    route = iota
	toCow             // the bio is aimed at its exception
	waits             // for the run that is being merged, then goes to the origin
	mustNotWait       // it would have to wait, but has NoWait
	nowhere           // a write now could be lost
)

// route decides where c goes. Writes to the run being merged wait; other writes to
// exceptions are tracked, so that the merge can wait for them.
func (t mergeTarget) route(c *dm.Clone) route {
	if !t.has(flagValid) {
		return toOrigin
	}
	b, m := t.body.Load(), t.merge
	chunk := c.Sector >> b.shift
	m.mu.Lock()
	defer m.mu.Unlock()
	where, ok := b.complete.lookup(chunk)
	switch {
	case !ok:
		return toOrigin
	case c.Op == blk.Write && chunk-m.first < m.count && m.unclear:
		return nowhere
	case c.Op == blk.Write && chunk-m.first < m.count && c.Flags&blk.NoWait != 0:
		return mustNotWait
	case c.Op == blk.Write && chunk-m.first < m.count:
		c.Dev = t.origin.Device
		m.queued.Push(c)
		return waits
	case c.Op == blk.Write:
		t.tracked.add(c.PerIO.(*perIO), chunk, 1)
	}
	b.remap(c, where)
	return toCow
}

// Presuspend stops the merge after the current round.
func (t mergeTarget) Presuspend() { t.merge.stop() }

// Resume continues the merge.
func (t mergeTarget) Resume() {
	t.snapshot.Resume()
	t.target.PartialUnit = t.group.members.Load().boundary
	t.set(0, flagMergeFailed)
	t.merge.start()
}
