package ebs

import (
	"slices"

	"udm/blk"
	"udm/dm"
)

// span is units of the device below.
type span struct{ first, end uint64 }

func (s span) overlaps(o span) bool { return s.first < o.end && o.first < s.end }

// perIO is the target's data for a clone.
type perIO struct {
	span span
	busy bool // guarded by ebs.mu; span is in ebs.busy
}

func (e *ebs) NewPerIO() any { return &perIO{} }

// take makes the units of a write busy. It returns false if one is already, or an older
// write waits for one: then the write waits as well, or ends if it must not.
func (e *ebs) take(c *dm.Clone) bool {
	p := c.PerIO.(*perIO)
	p.span = span{c.Sector / e.unit, (c.EndSector() + e.unit - 1) / e.unit}
	waits := c.Flags&blk.NoWait == 0
	e.mu.Lock()
	taken := e.takeLocked(p, e.waiting)
	if !taken && waits {
		e.waiting = append(e.waiting, c)
	}
	e.mu.Unlock()
	if !taken && !waits {
		c.Complete(blk.WouldBlock)
	}
	return taken
}

func (e *ebs) takeLocked(p *perIO, older []*dm.Clone) bool {
	if slices.ContainsFunc(e.busy, p.span.overlaps) ||
		slices.ContainsFunc(older, func(c *dm.Clone) bool { return p.span.overlaps(c.PerIO.(*perIO).span) }) {
		return false
	}
	e.busy = append(e.busy, p.span)
	p.busy = true
	return true
}

// leave gives the units of a write that has ended to those that wait for them.
func (e *ebs) leave(p *perIO) {
	e.mu.Lock()
	defer e.mu.Unlock()
	p.busy = false
	i := slices.Index(e.busy, p.span)
	last := len(e.busy) - 1
	e.busy[i] = e.busy[last]
	e.busy = e.busy[:last]
	if len(e.waiting) == 0 {
		return
	}
	left := e.waiting[:0]
	for _, c := range e.waiting {
		if e.takeLocked(c.PerIO.(*perIO), left) {
			e.queue.Push(c)
		} else {
			left = append(left, c)
		}
	}
	clear(e.waiting[len(left):])
	e.waiting = left
}
