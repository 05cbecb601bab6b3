package ctl

import "time"

// Trace is the body of trace: which device is traced.
type Trace struct {
	Ref
	// Only leaves out the mapped devices that the device stands on.
	Only bool `json:"only,omitempty"`
	// Ops are the operations that are traced, named as in [Stats]; nil means all.
	Ops []string `json:"ops,omitempty"`
	// Slower leaves out what takes less time. The steps of what is left come together, when
	// it has completed.
	Slower time.Duration `json:"slowerNanoseconds,omitempty"`
}

// TraceEvent is a step of a bio on its way through a device, or of a piece of it that goes to
// one target; or it says how many events were lost.
type TraceEvent struct {
	Step TraceStep `json:"step"`
	// Time is that of a clock that never goes back; only differences mean something.
	Time time.Duration `json:"nanoseconds"`
	// ID is the same in all steps of a piece in one device.
	ID      uint64   `json:"id,omitempty"`
	Number  *Number  `json:"number,omitempty"` // of the device
	Name    string   `json:"name,omitempty"`   // of the device
	Op      string   `json:"op,omitempty"`     // as in [Stats.Ops]
	Flags   []string `json:"flags,omitempty"`  // preflush, fua
	Sector  uint64   `json:"sector"`
	Sectors uint64   `json:"sectors"`
	Target  string   `json:"target,omitempty"` // type of the target

	// To and ToSector are, of an issued one, where it goes. A target may have made what it
	// sends to: then there is no number.
	To       *Number `json:"to,omitempty"`
	ToSector uint64  `json:"toSector,omitempty"`

	// Error is why a completed one failed; Took is the time since it was queued.
	Error string        `json:"error,omitempty"`
	Took  time.Duration `json:"tookNanoseconds,omitempty"`

	Lost uint64 `json:"lost,omitempty"` // for TraceLost

	// Followed says that the next event is at hand, so that a server sends both together.
	Followed bool `json:"-"`
}

// More implements [Continued].
func (e TraceEvent) More() bool { return e.Followed }

// TraceStep is what has happened.
type TraceStep string

// The steps. A piece is issued once for each bio that its target sends below, and not at all
// if the target answers it itself.
const (
	TraceQueued    TraceStep = "queued"
	TraceIssued    TraceStep = "issued"
	TraceCompleted TraceStep = "completed"
	TraceRequeued  TraceStep = "requeued" // pushed back by the target; it is queued again after a suspend, and fails without one
	TraceLost      TraceStep = "lost"
)
