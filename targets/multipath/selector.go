package multipath

import (
	"slices"
	"time"

	"udm/env"
)

// kind is a path selector that tables may name.
type kind struct {
	name         string
	weighs       bool // it takes the weights of historical-service-time
	maxPathWords int  // behind the device of a path, at most; as many are printed
	first        bool // a path that comes back is the next one to be used
	make         func(g *Group, e env.Env) selector
}

var kinds = []*kind{
	{name: "round-robin", maxPathWords: 1, first: true, make: func(*Group, env.Env) selector { return roundRobin{} }},
	{name: "queue-length", maxPathWords: 1, make: func(*Group, env.Env) selector { return queueLength{} }},
	{name: "service-time", maxPathWords: 2, make: func(*Group, env.Env) selector { return serviceTime{} }},
	{name: "historical-service-time", weighs: true, maxPathWords: 1, make: newHistorical},
}

func kindOf(name string) *kind {
	i := slices.IndexFunc(kinds, func(k *kind) bool { return k.name == name })
	if i < 0 {
		return nil
	}
	return kinds[i]
}

// selector chooses among the usable paths of a group. multipath.mu is held.
type selector interface {
	// better reports whether a is to be preferred to b for so many bytes. Where
	// neither is, the one that was used longest ago is taken.
	better(a, b *path, bytes uint64) bool
	// begin and end are called for each bio that a path has. began is what begin
	// has returned.
	begin() (began time.Duration)
	end(p *path, began time.Duration)
	// status is what a status says of a path.
	status(p *path) []uint64
}

// untimed is a selector that does not look at the clock.
type untimed struct{}

func (untimed) begin() time.Duration     { return 0 }
func (untimed) end(*path, time.Duration) {}

// roundRobin gives each path its turn.
type roundRobin struct{ untimed }

func (roundRobin) better(_, _ *path, _ uint64) bool { return false }
func (roundRobin) status(*path) []uint64            { return nil }

// queueLength prefers the path with the fewest bios.
type queueLength struct{ untimed }

func (queueLength) better(a, b *path, _ uint64) bool { return a.bios < b.bios }
func (queueLength) status(p *path) []uint64          { return []uint64{p.bios} }

// serviceTime prefers the path that will have transferred its bytes first, if each path
// has the throughput that the table says. One with throughput 0 is used if there is no
// other.
type serviceTime struct{ untimed }

func (serviceTime) better(a, b *path, bytes uint64) bool {
	ta, tb := uint64(a.throughput), uint64(b.throughput)
	switch {
	case ta == tb:
		return a.bytes < b.bytes
	case ta == 0 || tb == 0 || a.bytes == b.bytes:
		return ta > tb
	}
	sa, sb := (a.bytes+bytes)*tb, (b.bytes+bytes)*ta
	return sa < sb || sa == sb && ta > tb
}

func (serviceTime) status(p *path) []uint64 { return []uint64{p.bytes, uint64(p.throughput)} }
