package snapshot

import (
	"sync/atomic"

	"udm/internal/invariants"
)

// recordPoint is a point between two steps of recording at which a race would show.
// In builds with invariants, tests stop goroutines there; otherwise a point does
// nothing.
type recordPoint uint8

const (
	beforeRelease recordPoint = iota // the recorder has found nothing more, and has not ended its turn
	beforeLeave                      // an owner will not wait any longer, and has not announced it
	beforeEnter                      // a record has data, and nobody has been told
)

var atRecordPoint atomic.Pointer[func(recordPoint)] // set by tests

func reach(p recordPoint) {
	if invariants.Enabled {
		if f := atRecordPoint.Load(); f != nil {
			(*f)(p)
		}
	}
}
