package dm

import (
	"sync/atomic"

	"udm/internal/invariants"
)

// point is a place between two steps that must not be torn apart: count and look
// again, decide and count down. In builds with invariants tests stop goroutines
// there; in others a point is nothing.
type point uint8

const (
	beforeCount   point = iota // a submitter has seen a table and not counted itself
	keptOut                    // a drain has taken the table away and not looked at the counts
	beforeRequeue              // a piece was pushed back, and nobody has decided about it
)

var atPoint atomic.Pointer[func(*Device, point)] // set by tests

func (d *Device) reach(p point) {
	if invariants.Enabled {
		if f := atPoint.Load(); f != nil {
			(*f)(d, p)
		}
	}
}
