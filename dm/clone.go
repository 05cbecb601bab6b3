package dm

import (
	"udm/blk"
	"udm/internal/list"
)

// Clone is the bio that carries a piece of an original bio, or all of it, through a
// target to a lower device. Its Sector is at first an address in the mapped device.
//
// A target whose Map has returned Submitted owns the clone and finishes it in one
// of two ways: it sets Dev and Sector and calls Issue, or it calls Complete. Either
// way the target's EndIO runs. The core reuses clones: a target keeps no reference
// to one that it has finished.
type Clone struct {
	blk.Bio

	// Dev is the device that the clone goes to. The target sets it before Map
	// returns Remapped or before Issue.
	Dev blk.Device
	// Num numbers the clones of one flush, discard or write-zeroes, from 0 to
	// NumFlush-1 and so on.
	Num int
	// PerIO is the target's own data; see PerIOHook.
	PerIO any

	target *Target
	piece  *piece
	next   *Clone         // link of the CloneList that the clone is in
	end    func(*blk.Bio) // ended, bound once
}

// SetDev directs the clone to d.
func (c *Clone) SetDev(d *Dev) { c.Dev = d.Device }

// Target returns the target that the clone was made for.
func (c *Clone) Target() *Target { return c.target }

// Offset returns the clone's sector counted from the target's begin. It is valid
// until Map changes Sector.
func (c *Clone) Offset() uint64 { return c.Sector - c.target.Begin }

// Issue submits the clone to Dev.
func (c *Clone) Issue() {
	if p := c.piece; p.stats != nil {
		p.issued(c)
	}
	c.Dev.Submit(&c.Bio)
}

// Redirect makes fn the clone's End until Restore, for a target that must see the
// end of a lower I/O before the core does.
func (c *Clone) Redirect(fn func(*blk.Bio)) { c.End = fn }

// Restore undoes Redirect.
func (c *Clone) Restore() { c.End = c.end }

// Rewind resets the clone of a read or write that has ended to its state before
// Map, so that it can be mapped once more: for targets that try again after EndIO
// has returned EndIncomplete, or after a Redirect.
func (c *Clone) Rewind() {
	p := c.piece
	pos := p.pos
	if !p.split {
		pos = p.orig.Position()
	}
	c.Rearm()
	c.Seek(pos, p.sectors)
}

// CloneList is a queue of clones. Adding a clone does not allocate. A clone is in at
// most one list at a time. The zero value is empty.
type CloneList = list.List[Clone, *Clone]

// Link is where a [CloneList] keeps the next clone.
func (c *Clone) Link() **Clone { return &c.next }
