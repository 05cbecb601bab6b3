package sim

import (
	"context"
	"math/rand/v2"
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

// rename renames the device from a to b until the daemon is killed at an operation on
// files, and reports whether it came as far as that.
func (s *renamer) rename(w *harness, at int) (killed bool) {
	n, done := 0, false
	w.files.watch = func() {
		if n++; n == at {
			killed = true
			w.sim.NewWait().Until(func() bool { return false })
		}
	}
	w.sim.Go("rename", func() {
		_, err := s.srv.Rename(context.Background(), ctl.Rename{Ref: ctl.Ref{Name: "a"}, NewName: "b"})
		w.right(err, "rename")
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

// A daemon that was killed anywhere in a change shows the state before or after it. What it
// shows is still there when the power fails next.
func TestWhatAStartShowsStays(t *testing.T) {
	reached := true
	for at := 1; reached; at++ {
		for seed := range uint64(8) {
			s := &renamer{}
			w := &harness{seed: seed, rng: rand.New(rand.NewPCG(seed, 1)), sc: s}
			s.prepare(w)
			w.boot()
			w.task(func() {
				_, err := s.srv.Create(context.Background(), ctl.Create{Name: "a", Table: "0 8 zero"})
				w.right(err, "create")
			})
			reached = s.rename(w, at)
			off(w, true)
			w.boot()
			shown := s.names(w)
			off(w, false)
			w.boot()
			if now := s.names(w); now != shown || shown != "a" && shown != "b" {
				t.Errorf("killed at step %d, seed %d: a start shows %q, and %q after a power cut", at, seed, shown, now)
			}
			for _, err := range w.errs {
				t.Error(err)
			}
			off(w, true)
		}
	}
}
