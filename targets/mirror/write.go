package mirror

import (
	"sync/atomic"

	"udm/blk"
	"udm/dm"
)

// perIO is the target's data for a clone.
type perIO struct {
	leg         *leg   // that a read was sent to; nil: none
	number      uint64 // region of a read
	first, last uint64 // regions of a write or discard
	begun       bool   // it is pending there
	requeue     bool

	// For a write to all legs.
	m            *mirror
	clone        *dm.Clone
	bios         []blk.Bio
	left         atomic.Int32
	failed, full atomic.Uint32 // bits of legs
}

func (m *mirror) NewPerIO() any {
	p := &perIO{m: m, bios: make([]blk.Bio, len(m.legs))}
	for i := range p.bios {
		p.bios[i].End = func(b *blk.Bio) { p.ended(i, b.Status()) }
	}
	return p
}

// writeAll sends a write, flush or discard to all legs.
func (m *mirror) writeAll(c *dm.Clone) {
	p := c.PerIO.(*perIO)
	p.clone = c
	p.failed.Store(0)
	p.full.Store(0)
	p.left.Store(int32(len(m.legs)))
	off := c.Offset()
	for i := range m.legs {
		b, l := &p.bios[i], &m.legs[i]
		b.CloneFrom(&c.Bio)
		b.Flags &^= blk.NoWait
		if c.Op != blk.Flush {
			b.Sector = l.Start + off
		}
		l.Dev.Submit(b)
	}
}

func (p *perIO) ended(i int, st blk.Status) {
	switch st {
	case blk.OK:
	case blk.NoSpace:
		p.full.Or(1 << i)
	default:
		p.failed.Or(1 << i)
	}
	if p.left.Add(-1) == 0 {
		p.m.written(p.clone, p.failed.Load(), p.full.Load() != 0)
	}
}

// written runs when a write has ended on all legs.
func (m *mirror) written(c *dm.Clone, failed uint32, full bool) {
	switch {
	case failed == 0 && !full:
		c.Complete(blk.OK)
	case c.Op == blk.Discard:
		m.unlike(c, blk.NotSupported)
	case failed == 0:
		m.unlike(c, blk.NoSpace)
	default:
		for i := range m.legs {
			if failed>>i&1 != 0 {
				m.fail(i, writeFailed)
			}
		}
		m.give(&m.inbox.failures, c)
	}
}

// unlike ends a write or a discard that some legs had no space for or did not do: its regions
// have to be recovered. If they are read from another leg than a restart takes for the source,
// it is held, for what was read would change after its end.
func (m *mirror) unlike(c *dm.Clone, st blk.Status) {
	if p := c.PerIO.(*perIO); p.begun {
		m.mu.Lock()
		for n := p.first; n <= p.last; n++ {
			m.loseLocked(m.regions.known[n])
		}
		m.inSync.Store(false)
		m.mu.Unlock()
		m.queue.QueueAfter(m.again, retryAfter)
	}
	if m.primary.Load() != 0 && m.legFailed.Load() && m.line.HandleErrors && !m.line.KeepLog {
		m.hold(c)
		return
	}
	c.Complete(st)
}
