package dm

import (
	"reflect"
	"slices"
	"sync"
	"time"

	"udm/blk"
	"udm/env"
)

// Tracing notes the steps of pieces of bios on their way through devices. A tracer hangs on
// Device.stats like regions and accounting (stats.go), so that I/O of devices that nobody
// traces costs no more than without tracing. Noting a step takes a lock of the tracer, and
// allocates nothing.
//
// Lock order: Tracer.mu is a leaf.

// TraceStep is what has happened to a piece.
type TraceStep uint8

// The steps, in their order. A piece is queued once and ends once; it is issued once for each
// clone that is sent below, and not at all if its target answers it itself.
const (
	TraceQueued TraceStep = iota
	TraceIssued
	TraceCompleted
	TraceRequeued // the target pushed it back: it is queued again after a suspend, and fails without one
)

// TraceEvent is a step of a piece.
type TraceEvent struct {
	Step    TraceStep
	Time    time.Duration // of env.Env
	ID      uint64        // of the piece, in the Control; the same in all of its steps
	Device  Number        // that the piece is of
	Op      blk.Op
	Flags   blk.Flags
	Sector  uint64
	Sectors uint64
	Target  string // type of the target

	// To and ToSector are where a clone is issued to. To is 0:0 if the table has not opened
	// that by a number.
	To       Number
	ToSector uint64

	// Status and Took are of the end of a piece.
	Status blk.Status
	Took   time.Duration
}

// Tracer keeps events until somebody takes them. If nobody does in time, later ones are
// lost, and counted.
type Tracer struct {
	wake env.Wait
	ops  uint32 // a bit for each blk.Op that is noted

	mu     sync.Mutex
	events []TraceEvent // guarded by mu; never grows beyond its capacity
	lost   uint64       // guarded by mu; since events were taken
	ended  bool         // guarded by mu
}

// NewTracer returns a tracer of ops, without any of all, that keeps up to a number of events.
func NewTracer(e env.Env, most int, ops ...blk.Op) *Tracer {
	t := &Tracer{wake: e.NewWait(), events: make([]TraceEvent, 0, most)}
	for _, op := range ops {
		t.ops |= 1 << op
	}
	if len(ops) == 0 {
		t.ops = 1<<numOps - 1
	}
	return t
}

// Take waits for events and moves them to the empty slice into, which has room for as many as
// the tracer. It returns how many were lost after them, and false after End.
func (t *Tracer) Take(into []TraceEvent) (events []TraceEvent, lost uint64, ok bool) {
	t.wake.Until(func() bool {
		t.mu.Lock()
		defer t.mu.Unlock()
		return len(t.events) > 0 || t.lost > 0 || t.ended
	})
	t.mu.Lock()
	defer t.mu.Unlock()
	events, lost, ok = append(into, t.events...), t.lost, !t.ended
	t.events, t.lost = t.events[:0], 0
	return events, lost, ok
}

// End ends a Take that waits.
func (t *Tracer) End() {
	t.mu.Lock()
	t.ended = true
	t.mu.Unlock()
	t.wake.Wake()
}

func (t *Tracer) note(e TraceEvent) {
	if t.ops>>e.Op&1 == 0 {
		return
	}
	t.mu.Lock()
	if len(t.events) < cap(t.events) {
		t.events = append(t.events, e)
	} else {
		t.lost++
	}
	first := len(t.events) == 1
	t.mu.Unlock()
	if first { // who takes events, takes all
		t.wake.Wake()
	}
}

// Trace has t note the pieces of the device that are sent from now on.
func (d *Device) Trace(t *Tracer) {
	d.changeStats(func(ref *statsRef) { ref.tracers = append(slices.Clip(ref.tracers), t) })
}

// EndTrace undoes Trace. Pieces in flight are noted until they end.
func (d *Device) EndTrace(t *Tracer) {
	d.changeStats(func(ref *statsRef) {
		ref.tracers = slices.DeleteFunc(slices.Clone(ref.tracers), func(o *Tracer) bool { return o == t })
	})
}

// Stack returns the device and all mapped devices that it stands on, each once.
func (d *Device) Stack() []*Device {
	all := []*Device{d}
	for i := 0; i < len(all); i++ {
		for _, low := range all[i].mappedLowers() {
			if !slices.Contains(all, low) {
				all = append(all, low)
			}
		}
	}
	return all
}

// changeStats replaces the device's statistics by changed ones; by nil if they count nothing.
func (d *Device) changeStats(change func(*statsRef)) {
	for {
		old, ref := d.stats.Load(), new(statsRef)
		if old != nil {
			*ref = *old
		}
		if change(ref); len(ref.regions) == 0 && len(ref.tracers) == 0 && !ref.accounted {
			ref = nil
		}
		if d.stats.CompareAndSwap(old, ref) {
			return
		}
	}
}

// trace notes a step of the piece.
func (p *piece) trace(e TraceEvent) {
	s := p.span()
	e.ID, e.Device, e.Target = p.traced, p.dev.number, p.target.Type.Name
	e.Op, e.Flags, e.Sector, e.Sectors = p.op(), p.orig.Flags, s.begin, p.sectors
	for _, t := range p.stats.tracers {
		t.note(e)
	}
}

// traceQueued notes the beginning of a piece that orig has not advanced past yet.
func (p *piece) traceQueued() {
	p.traced = p.dev.control.traced.Add(1)
	p.trace(TraceEvent{Step: TraceQueued, Time: p.start})
}

// traceIssued notes where a clone goes.
func (p *piece) traceIssued(c *Clone) {
	p.trace(TraceEvent{Step: TraceIssued, Time: p.dev.env.Now(), To: p.dev.numberOf(c.Dev), ToSector: c.Sector})
}

// traceEnd notes the end of a piece, or that it will be sent again.
func (p *piece) traceEnd(st blk.Status) {
	step, now := TraceCompleted, p.dev.env.Now()
	if st == statusRequeue {
		step, st = TraceRequeued, blk.OK
	}
	p.trace(TraceEvent{Step: step, Time: now, Status: st, Took: now - p.start})
}

// numberOf returns the number of a device that the tables have open; 0:0 if they have not.
func (ls *lowers) numberOf(dev blk.Device) Number {
	ls.lowerMu.Lock()
	defer ls.lowerMu.Unlock()
	i := slices.IndexFunc(ls.opened, func(l *lower) bool { return reflect.TypeOf(l.dev).Comparable() && l.dev == dev })
	if i < 0 {
		return Number{}
	}
	return ls.opened[i].num
}
