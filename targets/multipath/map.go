package multipath

import (
	"time"

	"udm/blk"
	"udm/dm"
)

// perIO is the target's data for a clone.
type perIO struct {
	pos     blk.Position // where it began
	sectors uint64
	path    *path // that it is at; nil: at none
	began   time.Duration
	requeue bool // push it back
}

func (p *perIO) bytes() uint64 { return p.sectors * blk.SectorSize }

func (m *multipath) NewPerIO() any { return &perIO{} }

func (m *multipath) Map(c *dm.Clone) dm.Outcome {
	p := c.PerIO.(*perIO)
	p.pos, p.sectors, p.requeue = c.Position(), c.Sectors, false
	return m.route(c, p)
}

// route directs a clone to a path, or decides what becomes of it without one. If it is
// Submitted, it may be gone.
func (m *multipath) route(c *dm.Clone, p *perIO) dm.Outcome {
	m.mu.Lock()
	to := m.chooseLocked(p.bytes())
	impatient := c.Flags&blk.NoWait != 0
	queues := m.queues
	switch {
	case to != nil:
		p.path, p.began = to, to.beginLocked(p.bytes())
		c.SetDev(to.dev)
	case queues && !impatient:
		m.queued.Push(c)
	}
	m.mu.Unlock()
	switch {
	case to != nil:
		return dm.Remapped
	case queues && impatient:
		c.Complete(blk.WouldBlock)
		return dm.Submitted
	case queues:
		return dm.Submitted
	case m.target.NoflushSuspending():
		return dm.Requeue
	}
	return dm.Kill
}

// chooseLocked returns the path for a bio: of the group that was asked for, of the current
// one, or of the first one that has a usable path; bypassed groups come last.
func (m *multipath) chooseLocked(bytes uint64) *path {
	if m.usable == 0 {
		m.current, m.unused = nil, false
		return nil
	}
	if g := m.next; g != nil {
		if m.next = nil; len(g.order) > 0 {
			return m.useLocked(g, bytes)
		}
	}
	if g := m.current; g != nil && len(g.order) > 0 {
		return m.useLocked(g, bytes)
	}
	for _, bypassed := range [...]bool{false, true} {
		for _, g := range m.groups {
			if g.bypassed == bypassed && len(g.order) > 0 {
				return m.useLocked(g, bytes)
			}
		}
	}
	return nil
}

// useLocked makes a group with a usable path the current one, and chooses a path of it.
func (m *multipath) useLocked(g *group, bytes uint64) *path {
	m.current, m.unused = g, false
	best := 0
	for i, p := range g.order {
		if i > 0 && g.selector.better(p, g.order[best], bytes) {
			best = i
		}
	}
	p := g.order[best]
	copy(g.order[best:], g.order[best+1:])
	g.order[len(g.order)-1] = p
	return p
}

func (p *path) beginLocked(bytes uint64) time.Duration {
	p.bios++
	p.bytes += bytes
	return p.group.selector.begin()
}

func (p *path) endLocked(x *perIO) {
	p.bios--
	p.bytes -= x.bytes()
	p.group.selector.end(p, x.began)
}

// isPathError reports whether another path may do better (the kernel's blk_path_error).
func isPathError(st blk.Status) bool {
	return st == blk.IOErr || st == blk.Timeout || st == blk.Offline
}

// EndIO sends a clone that has failed because of its path to another one.
func (m *multipath) EndIO(c *dm.Clone, st blk.Status) (blk.Status, dm.EndOutcome) {
	p := c.PerIO.(*perIO)
	at := p.path
	if at == nil {
		if p.requeue {
			return st, dm.EndRequeue
		}
		return st, dm.EndDone
	}
	p.path = nil
	m.mu.Lock()
	at.endLocked(p)
	if !isPathError(st) {
		m.mu.Unlock()
		return st, dm.EndDone
	}
	failed := m.failLocked(at)
	goesOn := m.usable > 0 || m.queues
	if goesOn {
		c.Rearm()
		c.Seek(p.pos, p.sectors)
		m.queued.Push(c)
	}
	m.mu.Unlock()
	if failed {
		m.tell(at, "multipath: a path has failed")
	}
	switch {
	case goesOn:
		m.resending.Queue(m.again)
		return st, dm.EndIncomplete
	case m.target.NoflushSuspending():
		return st, dm.EndRequeue
	}
	return blk.IOErr, dm.EndDone
}

// resend is the work that sends queued clones. Those that still have no path go back to the
// queue, or end.
func (m *multipath) resend() {
	m.mu.Lock()
	list := m.queued.Take()
	m.mu.Unlock()
	for c := list.Pop(); c != nil; c = list.Pop() {
		p := c.PerIO.(*perIO)
		switch m.route(c, p) {
		case dm.Remapped:
			c.Issue()
		case dm.Requeue:
			p.requeue = true
			c.Complete(blk.IOErr)
		case dm.Kill:
			c.Complete(blk.IOErr)
		}
	}
}
