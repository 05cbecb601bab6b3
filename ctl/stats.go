package ctl

import (
	"time"

	"udm/dm"
)

// LatencyBounds are the upper bounds of [OpStats.Buckets].
var LatencyBounds = dm.LatencyBounds

// Stats is what a device has done since somebody first asked for the stats of its
// daemon, and what it does at the moment.
type Stats struct {
	Number
	Name     string `json:"name"`
	InFlight int64  `json:"inFlight"` // I/O that was sent to the targets
	Queued   int    `json:"queued"`   // I/O that waits for a resume, a table or its turn
	// Ops has an entry for each op that there was any of: read, write, flush,
	// discard, write_zeroes.
	Ops     map[string]OpStats `json:"ops,omitempty"`
	Commits *Commits           `json:"commits,omitempty"` // of a pool
}

// OpStats is what a device has done of one op.
type OpStats struct {
	Count  uint64        `json:"count"`
	Failed uint64        `json:"failed,omitempty"`
	Bytes  uint64        `json:"bytes,omitempty"`
	Time   time.Duration `json:"nanoseconds"` // of all together
	// Buckets counts them by the time that they took, as [LatencyBounds] says; there
	// is one more for what took longer. Nil: there were none.
	Buckets []uint64 `json:"buckets,omitempty"`
}

// Commits are commits of a pool's metadata since its table was loaded.
type Commits struct {
	Count   uint64        `json:"count"`
	Time    time.Duration `json:"nanoseconds"` // of all together
	Longest time.Duration `json:"longestNanoseconds"`
}
