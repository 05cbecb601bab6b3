package dm

import (
	"sync/atomic"

	"udm/internal/invariants"
)

// point is a place between two steps that another goroutine must not come between: to
// count and to check again, to decide and to uncount. In builds with invariants, tests
// stop goroutines at points; in other builds a point does nothing.
type point uint8

const (
	beforeCount   point = iota // a submitter has seen a table and not counted its piece yet
	keptOut                    // a drain has taken the table away and not read the counts yet
	beforeRequeue              // a piece was pushed back and not decided about yet
)

var atPoint atomic.Pointer[func(*Device, point)] // set by tests

func (d *Device) reach(p point) {
	if invariants.Enabled {
		if f := atPoint.Load(); f != nil {
			(*f)(d, p)
		}
	}
}
