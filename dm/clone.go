package dm

import (
	"udm/blk"
	"udm/internal/list"
)

// Clone is the bio that carries (a piece of) an original bio through a target
// to a lower device. Its Sector is, at first, an address in the mapped device.
//
// A target that returned Submitted finishes a clone in one of two ways: it sets
// Dev and calls Issue, or it calls Complete. Both lead through the target's
// EndIO.
type Clone struct {
	blk.Bio

	// Dev is where the clone goes: set by Map before Remapped or Issue.
	Dev blk.Device
	// Num tells the clones of one flush, discard or write-zeroes apart: 0 …
	// NumFlush-1 and so on.
	Num int
	// PerIO is the target's own data: see PerIOHook.
	PerIO any

	target *Target
	piece  *piece
	next   *Clone         // link of the CloneList that the clone is in
	end    func(*blk.Bio) // ended, bound once
}

// SetDev directs the clone to d.
func (c *Clone) SetDev(d *Dev) { c.Dev = d.Device }

// Target is the target that the clone was made for.
func (c *Clone) Target() *Target { return c.target }

// Offset is the clone's sector counted from the target's begin, before Map
// changes Sector.
func (c *Clone) Offset() uint64 { return c.Sector - c.target.Begin }

// Issue submits the clone to Dev.
func (c *Clone) Issue() {
	if p := c.piece; p.stats != nil && !p.entered {
		p.enterStats(p.dev.env.Now())
	}
	c.Dev.Submit(&c.Bio)
}

// Redirect makes fn the clone's End until Restore: for a target that must see
// the end of a lower I/O before the core does.
func (c *Clone) Redirect(fn func(*blk.Bio)) { c.End = fn }

// Restore undoes Redirect.
func (c *Clone) Restore() { c.End = c.end }

// Rewind makes a clone of a read or write that has ended what it was before Map,
// ready to be mapped once more: for targets that try again after an EndIO with
// EndIncomplete, or a Redirect.
func (c *Clone) Rewind() {
	p := c.piece
	pos := p.pos
	if !p.split {
		pos = p.orig.Position()
	}
	c.Rearm()
	c.Seek(pos, p.sectors)
}

// CloneList is a queue of clones. Adding to it never allocates; a clone is in
// one list at a time. The zero value is empty.
type CloneList = list.List[Clone, *Clone]

// Link is where a [CloneList] keeps the next clone.
func (c *Clone) Link() **Clone { return &c.next }
