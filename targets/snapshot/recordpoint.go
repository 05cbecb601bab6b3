package snapshot

import (
	"sync/atomic"

	"udm/internal/invariants"
)

// recordPoint is a place between two steps of recording that must not be torn
// apart. In builds with invariants tests stop goroutines there; in others a point
// is nothing.
type recordPoint uint8

const (
	beforeRelease recordPoint = iota // the recorder has found nothing more, and not ended its turn
	beforeLeave                      // an owner does not wait any longer, and has not said so
	beforeEnter                      // a record has data, and nobody was told
)

var atRecordPoint atomic.Pointer[func(recordPoint)] // set by tests

func reach(p recordPoint) {
	if invariants.Enabled {
		if f := atRecordPoint.Load(); f != nil {
			(*f)(p)
		}
	}
}
