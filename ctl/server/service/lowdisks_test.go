package service

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"testing"

	"udm/blk"
	"udm/blk/leaf"
	"udm/blk/memdev"
	"udm/ctl"
	"udm/dm"
	"udm/env"
	"udm/targets/all"
)

// lowOpener opens a disk on a file system that is low on space, or not.
type lowOpener struct {
	*leaf.Opener
	low bool
}

func (o *lowOpener) Open(string, bool) (blk.Device, dm.Number, error) {
	return memdev.New(64), dm.Number{Major: 7}, nil
}

func (o *lowOpener) Report(dm.Number) (r blk.Report, ok bool) {
	if o.low {
		r = blk.Report{State: "low on space", Free: 1 << 20, Lacks: 1 << 30}
	}
	return r, o.low
}

// A disk that may find no space is told of once, in the log and in the status, and
// again when it was better in between.
func TestLowDisks(t *testing.T) {
	ctx, sim, log := context.Background(), env.NewStepped(), new(bytes.Buffer)
	o := &lowOpener{leaf.New(sim), false}
	s, err := New(Config{Root: t.TempDir(), Types: all.Types(), Env: sim, Opener: o, Log: slog.New(slog.NewTextHandler(log, nil))})
	must(t, err)
	must(t, s.Restore(ctx))
	_, err = s.Create(ctx, ctl.Create{Name: "x", Table: "0 64 linear a 0"})
	must(t, err)
	for i, step := range []struct {
		low  bool
		told int
	}{{false, 0}, {true, 1}, {true, 1}, {false, 1}, {true, 2}} {
		o.low = step.low
		s.Retry(ctx)
		sim.Advance(lookEvery)
		if got := strings.Count(log.String(), "low on space; free some"); got != step.told {
			t.Errorf("step %d: told %d times, want %d\n%s", i, got, step.told, log)
		}
	}
	d, err := s.Device(ctx, ctl.Query{Ref: ctl.Ref{Name: "x"}, With: []ctl.With{ctl.WithDeps}})
	must(t, err)
	if r := d.Deps[0].Report; r == nil || r.Lacks != 1<<30 {
		t.Errorf("the status has %+v", r)
	}
	ended(t, s)
}
