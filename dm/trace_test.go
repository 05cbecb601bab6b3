package dm

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"udm/blk"
	"udm/env"
	"udm/internal/invariants"
)

// take returns the events that a tracer has, one to a line.
func (r *rig) take(tr *Tracer) (lines []string) {
	r.t.Helper()
	events, lost, ok := tr.Take(nil)
	if lost > 0 || !ok {
		r.t.Errorf("%d events lost, %v", lost, ok)
	}
	for _, e := range events {
		line := fmt.Sprintf("%d %s %v %d+%d %s", e.ID, []string{"Q", "D", "C", "R"}[e.Step], e.Op, e.Sector, e.Sectors, e.Target)
		switch e.Step {
		case TraceIssued:
			line += fmt.Sprintf(" -> %s %d", e.To, e.ToSector)
		case TraceCompleted:
			line += fmt.Sprintf(" %v", e.Status)
		}
		lines = append(lines, line)
	}
	return lines
}

func (r *rig) traced(tr *Tracer, want ...string) {
	r.t.Helper()
	if got := r.take(tr); !slices.Equal(got, want) {
		r.t.Errorf("traced\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// A write that two targets share, and its way through the device below, up to a failure.
func TestTrace(t *testing.T) {
	r := newRig(t)
	low := r.device("low", "0 128 shift g0")
	top := r.device("top", "0 64 shift /dev/mapper/low", "64 64 shift g1")
	tr := NewTracer(r.sim, 100)
	if s := top.Stack(); !slices.Equal(s, []*Device{top, low}) {
		t.Errorf("the stack is %v", s)
	}
	for _, d := range top.Stack() {
		d.Trace(tr)
	}
	x := r.write(top, 60, 8)
	r.release("g0")
	r.fail("g1", blk.IOErr)
	r.ended(x, blk.IOErr)
	got := r.take(tr)
	for _, want := range []string{"Q write 60+4 shift", "D write 60+4 shift -> " + low.Number().String(), "C write 60+4 shift no error", "Q write 64+4 shift", "D write 64+4 shift -> 7:1", "C write 64+4 shift"} {
		if want = strings.Replace(want, "no error", fmt.Sprint(blk.OK), 1); !slices.ContainsFunc(got, func(l string) bool { return strings.Contains(l, want) }) {
			t.Errorf("%q is not in\n%s", want, strings.Join(got, "\n"))
		}
	}
	if len(got) != 9 { // three steps of each of two pieces, and of the one below
		t.Errorf("%d steps:\n%s", len(got), strings.Join(got, "\n"))
	}
	ids := make(map[string]int)
	for _, l := range got {
		ids[strings.Fields(l)[0]]++
	}
	if len(ids) != 3 || ids["1"] != 3 || ids["2"] != 3 || ids["3"] != 3 {
		t.Errorf("numbers of pieces: %v", ids)
	}
}

// Who does not take events in time loses later ones, which are counted. A trace leaves
// regions and accounting alone, and after it the device counts as before.
func TestTraceEnds(t *testing.T) {
	r := newRig(t)
	d := r.device("x", "0 128 shift g0")
	r.gate("g0").Open()
	tr, other := NewTracer(r.sim, 4), NewTracer(r.sim, 100)
	d.Trace(tr)
	r.says(d, "@stats_create - /1", "0")
	r.c.Account()
	d.Trace(other)
	r.write(d, 0, 8)
	r.write(d, 8, 8)
	events, lost, ok := tr.Take(nil)
	if len(events) != 4 || lost != 2 || !ok {
		t.Errorf("%d events, %d lost, %v", len(events), lost, ok)
	}
	d.EndTrace(tr)
	r.write(d, 16, 8)
	if got := r.take(other); len(got) != 9 {
		t.Errorf("the other has %v", got)
	}
	d.EndTrace(other)
	if ref := d.stats.Load(); len(ref.tracers) != 0 || len(ref.regions) != 1 || !ref.accounted {
		t.Errorf("%+v", ref)
	}
	if n := d.Account().Ops[blk.Write].Count; n != 3 {
		t.Errorf("%d writes are accounted", n)
	}
	tr.End()
	if _, _, ok := tr.Take(nil); ok {
		t.Error("a tracer that has ended goes on")
	}
	still := r.device("still", "0 128 shift g0")
	still.EndTrace(tr)
	still.Trace(tr)
	still.EndTrace(tr)
	if ref := still.stats.Load(); ref == nil || len(ref.tracers) != 0 { // it is accounted
		t.Errorf("%+v", ref)
	}
}

// A flush is traced as a flush, with a step for each clone.
func TestTraceFlush(t *testing.T) {
	r := newRig(t)
	d := r.device("x", "0 64 shift g0", "64 64 shift g1")
	tr := NewTracer(r.sim, 100)
	d.Trace(tr)
	r.gate("g0").Open()
	r.gate("g1").Open()
	r.ended(r.submit(d, blk.Flush, 0, 0, 0), blk.OK)
	r.traced(tr, "1 Q flush 0+0 shift", "1 D flush 0+0 shift -> 7:0 0", "1 D flush 0+0 shift -> 7:1 0", "1 C flush 0+0 shift "+fmt.Sprint(blk.OK))
}

// Operations that a tracer does not want take no room in it.
func TestTraceOps(t *testing.T) {
	r := newRig(t)
	d := r.device("x", "0 128 shift g0")
	r.gate("g0").Open()
	tr := NewTracer(r.sim, 3, blk.Read, blk.Flush)
	d.Trace(tr)
	r.write(d, 0, 8)
	r.ended(r.submit(d, blk.Read, 0, 8, 8), blk.OK)
	r.traced(tr, "2 Q read 8+8 shift", "2 D read 8+8 shift -> 7:0 8", "2 C read 8+8 shift "+fmt.Sprint(blk.OK))
}

// A piece that a suspend pushes back is traced once more after the resume.
func TestTraceRequeued(t *testing.T) {
	r := newRig(t)
	d := r.three()
	tr := NewTracer(r.sim, 100)
	d.Trace(tr)
	script(d, 0).onEnd = endRequeue(8)
	x := r.write(d, 8, 8)
	done := r.suspendTask(d, true)
	r.release("g0")
	if !*done {
		t.Fatal("not suspended")
	}
	r.traced(tr, "1 Q write 8+8 script", "1 D write 8+8 script -> 7:0 8", "1 R write 8+8 script")
	script(d, 0).onEnd = nil
	r.gate("g0").Forget()
	r.resume(d)
	r.release("g0")
	r.ended(x, blk.OK)
	r.traced(tr, "2 Q write 8+8 script", "2 D write 8+8 script -> 7:0 8", "2 C write 8+8 script "+fmt.Sprint(blk.OK))
}

// I/O allocates nothing, traced or not, whether somebody takes the steps or not. (Under the race
// detector a sync.Pool drops things on purpose.)
func TestSubmitAllocatesNothing(t *testing.T) {
	d := benchDevice(t)
	submit := func() float64 {
		var b blk.Bio
		b.SetData(make([]byte, 4096))
		b.End = func(*blk.Bio) {}
		return testing.AllocsPerRun(1000, func() {
			b.Rearm()
			d.Submit(&b)
		})
	}
	if n := submit(); n > 0 && !invariants.Enabled {
		t.Errorf("%v allocations", n)
	}
	tr := NewTracer(env.Real(), 1000)
	d.Trace(tr)
	if n := submit(); n > 0 && !invariants.Enabled {
		t.Errorf("%v allocations of a traced device", n)
	}
	if events, lost, _ := tr.Take(nil); len(events) != 1000 || lost != 3*1001-1000 {
		t.Errorf("%d steps were noted, %d lost", len(events), lost)
	}
	d.EndTrace(tr)
	if d.stats.Load() != nil {
		t.Error("the device is still slowed down")
	}
}
