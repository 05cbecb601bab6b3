package service

import (
	"context"
	"iter"
	"slices"
	"strings"
	"syscall"
	"time"

	"udm/blk"
	"udm/ctl"
	"udm/dm"
)

// maxTraced is how many steps of a trace wait for its reader, and how many of what has not
// completed may be held back; further ones are lost.
const maxTraced = 16 << 10

// Trace implements [ctl.Service].
func (s *Service) Trace(ctx context.Context, r ctl.Trace) (iter.Seq2[ctl.TraceEvent, error], error) {
	d, err := s.find(r.Ref)
	if err != nil {
		return nil, err
	}
	wanted, err := opsNamed(r.Ops)
	if err != nil {
		return nil, err
	}
	traced := []*dm.Device{d}
	if !r.Only {
		traced = d.Stack()
	}
	t := tracing{tracer: dm.NewTracer(s.env, maxTraced, wanted...), names: make(map[dm.Number]string, len(traced)), slower: r.Slower}
	for _, d := range traced {
		t.names[d.Number()] = d.Name()
		d.Trace(t.tracer)
	}
	end := func() {
		for _, d := range traced {
			d.EndTrace(t.tracer)
		}
		t.tracer.End()
	}
	forget := context.AfterFunc(ctx, end)
	return func(yield func(ctl.TraceEvent, error) bool) {
		defer end()
		defer forget()
		t.follow(yield)
	}, nil
}

// opsNamed returns the ops with names.
func opsNamed(names []string) (ops []blk.Op, err error) {
	for _, name := range names {
		op := slices.Index(opNames, name)
		if op < 0 {
			return nil, dm.Errorf(syscall.EINVAL, "no operation is named %q; give some of %s", name, strings.Join(opNames, ", "))
		}
		ops = append(ops, blk.Op(op))
	}
	return ops, nil
}

// tracing is a trace on its way to its reader.
type tracing struct {
	tracer *dm.Tracer
	names  map[dm.Number]string
	slower time.Duration
}

// follow yields what happens until the tracer ends, or its reader.
func (t *tracing) follow(yield func(ctl.TraceEvent, error) bool) {
	room, h := make([]dm.TraceEvent, 0, maxTraced), held{slower: t.slower, steps: make(map[uint64][]dm.TraceEvent)}
	for {
		events, lost, ok := t.tracer.Take(room)
		if t.slower > 0 {
			events, lost = h.pick(events, lost)
		}
		for i, e := range events {
			out := t.event(e)
			out.Followed = lost > 0 || i+1 < len(events)
			if !yield(out, nil) {
				return
			}
		}
		if lost > 0 && !yield(ctl.TraceEvent{Step: ctl.TraceLost, Lost: lost}, nil) || !ok {
			return
		}
	}
}

// held are the steps of pieces that have not ended, by the number of the piece.
type held struct {
	slower time.Duration
	steps  map[uint64][]dm.TraceEvent
	n      int // of all pieces
}

// pick returns the steps of pieces that have ended and took long enough. Pieces whose steps
// were lost, or of which there are too many, are counted as lost.
func (h *held) pick(events []dm.TraceEvent, lost uint64) ([]dm.TraceEvent, uint64) {
	var out []dm.TraceEvent
	for _, e := range events {
		h.steps[e.ID] = append(h.steps[e.ID], e)
		h.n++
		if e.Step != dm.TraceCompleted && e.Step != dm.TraceRequeued {
			continue
		}
		if e.Took >= h.slower {
			out = append(out, h.steps[e.ID]...)
		}
		h.n -= len(h.steps[e.ID])
		delete(h.steps, e.ID)
	}
	if lost > 0 || h.n > maxTraced {
		lost += uint64(h.n)
		clear(h.steps)
		h.n = 0
	}
	return out, lost
}

var traceSteps = []ctl.TraceStep{dm.TraceQueued: ctl.TraceQueued, dm.TraceIssued: ctl.TraceIssued, dm.TraceCompleted: ctl.TraceCompleted, dm.TraceRequeued: ctl.TraceRequeued}

// event is an event in the form of the protocol.
func (t *tracing) event(e dm.TraceEvent) ctl.TraceEvent {
	n := ctl.Number(e.Device)
	out := ctl.TraceEvent{Step: traceSteps[e.Step], Time: e.Time, ID: e.ID, Number: &n, Name: t.names[e.Device], Op: opNames[e.Op],
		Sector: e.Sector, Sectors: e.Sectors, Target: e.Target, Took: e.Took}
	if e.Flags&blk.Preflush != 0 {
		out.Flags = append(out.Flags, "preflush")
	}
	if e.Flags&blk.FUA != 0 {
		out.Flags = append(out.Flags, "fua")
	}
	if e.Step == dm.TraceIssued {
		out.ToSector = e.ToSector
		if to := ctl.Number(e.To); e.To != (dm.Number{}) {
			out.To = &to
		}
	}
	if e.Status != blk.OK {
		out.Error = e.Status.Error()
	}
	return out
}
