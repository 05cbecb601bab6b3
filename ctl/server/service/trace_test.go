package service

import (
	"context"
	"errors"
	"iter"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"udm/blk"
	"udm/blk/blktest"
	"udm/ctl"
	"udm/dm"
	"udm/env"
	"udm/targets/all"
)

// tracingRig is a service with a device top that stands on low.
type tracingRig struct {
	*Service
	t    *testing.T
	ctx  context.Context
	stop context.CancelFunc
}

func newTracingRig(t *testing.T) *tracingRig {
	t.Helper()
	blktest.Leaks(t)
	s, err := New(Config{Root: t.TempDir(), Types: all.Types()})
	r := &tracingRig{Service: s, t: t}
	r.must(err)
	t.Cleanup(func() { r.must(s.Close()) })
	r.ctx, r.stop = context.WithCancel(context.Background())
	t.Cleanup(r.stop)
	r.must(s.Restore(r.ctx))
	for _, c := range []ctl.Create{{Name: "low", Table: "0 2048 linear mem:1M 0"}, {Name: "top", Table: "0 1024 linear /dev/mapper/low 100"}} {
		_, err := s.Create(r.ctx, c)
		r.must(err)
	}
	return r
}

func (r *tracingRig) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

// trace traces top.
func (r *tracingRig) trace(in ctl.Trace) (events iter.Seq2[ctl.TraceEvent, error]) {
	r.t.Helper()
	in.Name = "top"
	events, err := r.Trace(r.ctx, in)
	r.must(err)
	return events
}

// write writes to top a number of times.
func (r *tracingRig) write(times int) {
	r.t.Helper()
	d, err := r.Open(ctl.Ref{Name: "top"}, true)
	r.must(err)
	for range times {
		r.must(blk.WriteSectors(env.Real(), d, make([]byte, 4096), 8, 0))
	}
	r.must(d.Close())
}

// all returns what is left of a trace.
func (r *tracingRig) all(events iter.Seq2[ctl.TraceEvent, error]) (list []ctl.TraceEvent, lost uint64) {
	r.t.Helper()
	for e, err := range events {
		r.must(err)
		if e.Step == ctl.TraceLost {
			lost += e.Lost
			continue
		}
		list = append(list, e)
	}
	return list, lost
}

// A trace follows a write through two devices, tells where it went, and ends with its client.
func TestTrace(t *testing.T) {
	r := newTracingRig(t)
	both, only := r.trace(ctl.Trace{}), r.trace(ctl.Trace{Only: true})
	reads, slow := r.trace(ctl.Trace{Ops: []string{"read"}}), r.trace(ctl.Trace{Slower: time.Hour})
	r.write(1)
	r.stop()
	seen := make(map[string]ctl.TraceEvent)
	list, _ := r.all(both)
	for _, e := range list {
		seen[e.Name+" "+string(e.Step)] = e
	}
	if len(list) != 6 || len(seen) != 6 {
		t.Errorf("%+v", list)
	}
	if q := seen["top queued"]; q.Sector != 8 || q.Sectors != 8 || q.Target != "linear" || q.Op != "write" {
		t.Errorf("%+v", q)
	}
	if i := seen["top issued"]; i.To == nil || *i.To != *seen["low queued"].Number || i.ToSector != 108 || seen["low queued"].Sector != 108 {
		t.Errorf("%+v", i)
	}
	if c := seen["top completed"]; c.Error != "" || c.Took < seen["low completed"].Took || seen["low completed"].ID == c.ID {
		t.Errorf("%+v", c)
	}
	if list, _ := r.all(only); len(list) != 3 || slices.ContainsFunc(list, func(e ctl.TraceEvent) bool { return e.Name != "top" }) {
		t.Errorf("of the device only: %+v", list)
	}
	for what, trace := range map[string]iter.Seq2[ctl.TraceEvent, error]{"a trace of reads": reads, "a trace of what takes an hour": slow} {
		if list, lost := r.all(trace); len(list) > 0 || lost > 0 {
			t.Errorf("%s has %+v, %d lost", what, list, lost)
		}
	}
}

// What is slow is told with all of its steps, one after the other.
func TestTraceOfSlow(t *testing.T) {
	r := newTracingRig(t)
	trace := r.trace(ctl.Trace{Slower: time.Nanosecond, Ops: []string{"write", "flush"}})
	r.write(2)
	r.stop()
	list, _ := r.all(trace)
	var steps []string
	for _, e := range list {
		steps = append(steps, e.Name+" "+string(e.Step))
	}
	one := []string{"low queued", "low issued", "low completed", "top queued", "top issued", "top completed"}
	if !slices.Equal(steps, append(one, one...)) {
		t.Errorf("%v", steps)
	}
}

// A reader that stops reading costs a bounded amount of memory and delays nobody. What it has
// missed is counted.
func TestTraceOfNobody(t *testing.T) {
	r := newTracingRig(t)
	const times = maxTraced/6 + 1000
	for _, slower := range []time.Duration{0, time.Hour} {
		trace := r.trace(ctl.Trace{Slower: slower})
		r.write(times)
		n := 0
		for e, err := range trace {
			r.must(err)
			if n++; e.Step != ctl.TraceLost {
				continue
			}
			if slower == 0 && (n != maxTraced+1 || e.Lost != 6*times-maxTraced) || slower > 0 && n != 1 {
				t.Errorf("%d steps, then %d lost", n-1, e.Lost)
			}
			break // which ends the trace
		}
	}
	after := r.trace(ctl.Trace{})
	r.write(1)
	r.stop()
	if list, lost := r.all(after); len(list) != 6 || lost > 0 {
		t.Errorf("the next trace has %d steps, %d lost", len(list), lost)
	}
}

// What cannot be traced is refused in words.
func TestTraceRefused(t *testing.T) {
	r := newTracingRig(t)
	if _, err := r.Trace(r.ctx, ctl.Trace{Ref: ctl.Ref{Name: "none"}}); !errors.Is(err, syscall.ENXIO) {
		t.Errorf("what is not there: %v", err)
	}
	if _, err := r.Trace(r.ctx, ctl.Trace{Ref: ctl.Ref{Name: "top"}, Ops: []string{"seek"}}); err == nil || !strings.Contains(err.Error(), `"seek"; give some of read, write`) {
		t.Errorf("an unknown operation: %v", err)
	}
}

// Steps of pieces that never end, or whose end was lost, do not pile up.
func TestHeldIsBounded(t *testing.T) {
	h := held{slower: 1, steps: make(map[uint64][]dm.TraceEvent)}
	var lost uint64
	for i := range uint64(3 * maxTraced) {
		_, more := h.pick([]dm.TraceEvent{{ID: i}}, 0)
		lost += more
	}
	if h.n > maxTraced || lost+uint64(h.n) != 3*maxTraced {
		t.Errorf("%d steps are held, %d lost", h.n, lost)
	}
	if _, lost := h.pick([]dm.TraceEvent{{ID: 1 << 40}}, 7); len(h.steps) != 0 || lost < 8 {
		t.Errorf("%d pieces are held after a loss of %d", len(h.steps), lost)
	}
}
