package sim

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"udm/ctl"
	"udm/ctl/server/service"
)

// renamer is a daemon with one device.
type renamer struct{ srv *service.Service }

func (s *renamer) prepare(w *harness)           { w.files = newFilesys(w); w.files.watch = func() {} }
func (s *renamer) control(*harness, *rand.Rand) {}
func (s *renamer) verify(*harness)              {}

// names are those of the devices that it shows.
func (s *renamer) names(w *harness) (list string) {
	for _, d := range w.c.List() {
		list += d.Name()
	}
	return list
}

func (s *renamer) start(w *harness) {
	var err error
	w.files.off, w.files.watch = false, func() {}
	s.srv, err = service.New(service.Config{Root: root, Env: w.sim, Opener: w, FS: w.files, Control: w.c})
	if w.right(err, "start the daemon") {
		w.right(s.srv.Restore(context.Background()), "restore")
	}
}

// killed carries out a change until the daemon is killed at an operation on files, and reports
// whether it came as far as that.
func (s *renamer) killed(w *harness, at int, change func(context.Context) error) (killed bool) {
	n, done := 0, false
	w.files.watch = func() {
		if n++; n == at {
			killed = true
			w.sim.NewWait().Until(func() bool { return false })
		}
	}
	w.sim.Go("change", func() {
		w.right(change(context.Background()), "change")
		done = true
	})
	w.until(func() bool { return killed || done })
	w.files.watch = func() {}
	return killed
}

// off ends the daemon by a kill or a power cut.
func off(w *harness, killed bool) {
	w.files.cut(killed, w.rng)
	w.sim.Close()
}

// staysShown checks that a daemon that was killed anywhere in a change shows the state before
// or after it, and that what it shows is still there when the power fails next.
func staysShown(t *testing.T, prepare, change func(context.Context, *service.Service) error, show func(*renamer, *harness) string, states ...string) {
	t.Helper()
	reached := true
	for at := 1; reached; at++ {
		for seed := range uint64(8) {
			s := &renamer{}
			w := &harness{seed: seed, rng: rand.New(rand.NewPCG(seed, 1)), sc: s}
			s.prepare(w)
			w.boot()
			w.task(func() { w.right(prepare(context.Background(), s.srv), "prepare") })
			reached = s.killed(w, at, func(ctx context.Context) error { return change(ctx, s.srv) })
			off(w, true)
			w.boot()
			shown := show(s, w)
			off(w, false)
			w.boot()
			if now := show(s, w); now != shown || !slices.Contains(states, shown) {
				t.Errorf("killed at step %d, seed %d: a start shows %q, and %q after a power cut", at, seed, shown, now)
			}
			for _, err := range w.errs {
				t.Error(err)
			}
			off(w, true)
		}
	}
}

// A change of a name is there as a whole.
func TestWhatAStartShowsStays(t *testing.T) {
	staysShown(t, func(ctx context.Context, s *service.Service) error {
		_, err := s.Create(ctx, ctl.Create{Name: "a", Table: "0 8 zero"})
		return err
	}, func(ctx context.Context, s *service.Service) error {
		_, err := s.Rename(ctx, ctl.Rename{Ref: ctl.Ref{Name: "a"}, NewName: "b"})
		return err
	}, (*renamer).names, "a", "b")
}

// A change of a limit is there as a whole: of one of a device, of a group, and the end of a
// group.
func TestLimitsStay(t *testing.T) {
	prepare := func(ctx context.Context, s *service.Service) error {
		_, err := s.Create(ctx, ctl.Create{Name: "a", Table: "0 8 zero"})
		return errors.Join(err, s.Limit(ctx, ctl.Limit{Group: "h", Write: ctl.Rate{IOPS: 7}}),
			s.Limit(ctx, ctl.Limit{Group: "g", Write: ctl.Rate{IOPS: 1}}), s.Limit(ctx, ctl.Limit{Device: "a", Group: "g", Read: ctl.Rate{Bytes: 2}}))
	}
	const before = "g=1 h=7 a=2 "
	for after, l := range map[string]ctl.Limit{
		"g=9 h=7 a=2 ": {Group: "g", Write: ctl.Rate{IOPS: 9}},
		"g=1 h=7 a=9 ": {Device: "a", Group: "h", Read: ctl.Rate{Bytes: 9}},
		"g=1 a=2 ":     {Group: "h"},
	} {
		staysShown(t, prepare, func(ctx context.Context, s *service.Service) error { return s.Limit(ctx, l) }, shownLimits, before, after)
	}
}

// shownLimits returns the limits of groups and devices that a daemon shows.
func shownLimits(s *renamer, w *harness) (text string) {
	w.task(func() {
		list, err := s.srv.Limits(context.Background())
		w.right(err, "limits")
		for _, l := range list {
			name := l.Device
			if name == "" {
				name = l.Group
			}
			text += fmt.Sprintf("%s=%d ", name, l.Write.IOPS+l.Read.Bytes)
		}
	})
	return text
}
