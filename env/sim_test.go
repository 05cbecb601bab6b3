package env_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"udm/env"
)

// busy runs users that pass items between queues, with delays, and returns the
// order of events.
func busy(s *env.Sim) string {
	r, w := &trace{}, s.NewWait()
	qs := []env.Queue{s.NewQueue("a"), s.NewQueue("b")}
	items := 0
	for u := range 4 {
		s.Go("user", func() {
			for i := range 5 {
				name := fmt.Sprintf("%d.%d", u, i)
				d := time.Duration(s.Uint64() % 3)
				qs[i%2].QueueAfter(env.NewWork(func() { r.add(name); items++ }), d)
				before := items
				w.Until(func() bool { return items > before || items == 20 })
			}
		})
	}
	s.Advance(100)
	return fmt.Sprint(r, " at ", s.Now())
}

func TestASeedReplaysARun(t *testing.T) {
	runs := map[string]bool{}
	for seed := range uint64(20) {
		a, b := busy(env.NewSim(seed)), busy(env.NewSim(seed))
		if a != b {
			t.Fatalf("seed %d gives two runs:\n%s\n%s", seed, a, b)
		}
		runs[a] = true
	}
	if len(runs) < 15 {
		t.Errorf("20 seeds give only %d different runs", len(runs))
	}
	if a, b := busy(env.NewStepped()), busy(env.NewStepped()); a != b {
		t.Error("a stepped run differs from the next")
	}
}

func TestSteppedRunsTheOldestFirst(t *testing.T) {
	s, r := env.NewStepped(), &trace{}
	a, b := s.NewQueue("a"), s.NewQueue("b")
	a.Queue(r.work("a1"))
	b.Queue(r.work("b1"))
	a.Queue(r.work("a2"))
	s.Go("t", func() { r.add("t") })
	want := []string{"a1", "a1 b1", "a1 b1 t", "a1 b1 t a2"}
	for _, w := range want {
		if !s.Step() {
			t.Fatal("nothing to step")
		}
		r.want(t, w)
	}
	if s.Step() {
		t.Error("stepped without anything to do")
	}
}

func TestAdvanceMovesTimeAndNothingElseDoes(t *testing.T) {
	s, r := env.NewStepped(), &trace{}
	q := s.NewQueue("q")
	q.QueueAfter(env.NewWork(func() {
		r.add(s.Now().String())
		q.QueueAfter(r.work("later"), time.Second)
	}), time.Second)
	s.AfterFunc(1500*time.Millisecond, func() { r.add("device") })
	s.Run()
	if s.Now() != 0 || s.Pending() != 2 {
		t.Fatalf("%v", s)
	}
	s.Advance(time.Second)
	r.want(t, "1s")
	s.Advance(999 * time.Millisecond)
	r.want(t, "1s device")
	s.Advance(time.Millisecond)
	r.want(t, "1s device later")
	if s.Now() != 2*time.Second || s.Pending() != 0 {
		t.Errorf("%v", s)
	}
	q.QueueAfter(r.work("never"), time.Second)
	q.Close()
	if s.Pending() != 0 {
		t.Error("a closed queue has timers")
	}
}

func panicked(f func()) (r any) {
	defer func() { r = recover() }()
	f()
	return nil
}

func TestDeadlockTellsWhoWaits(t *testing.T) {
	s := env.NewSim(1)
	s.Go("reader", func() { s.NewWait().Until(func() bool { return false }) })
	r := panicked(func() { s.NewWait().Until(func() bool { return false }) })
	if r == nil || !strings.Contains(fmt.Sprint(r), "reader waits") {
		t.Errorf("got %v", r)
	}
	s.Close()
}

func TestWaitingOutsideATaskFiresTimers(t *testing.T) {
	s := env.NewSim(1)
	q, came := s.NewQueue("q"), false
	q.QueueAfter(env.NewWork(func() { came = true }), time.Hour)
	s.NewWait().Until(func() bool { return came })
	if s.Now() != time.Hour {
		t.Error(s.Now())
	}
}

// A panic of a work propagates from Step with its stack; the simulator stays
// usable.
func TestPanicOfAWorkComesOutOfStep(t *testing.T) {
	s, r := env.NewStepped(), &trace{}
	q := s.NewQueue("bad queue")
	boom := errors.New("boom")
	q.Queue(env.NewWork(func() { explode(boom) }))
	q.Queue(r.work("next"))
	got := panicked(s.Run)
	p, ok := got.(*env.TaskPanic)
	if !ok || p.Value != boom || p.Task != "bad queue" || !strings.Contains(p.Error(), "explode") {
		t.Fatalf("got %v", got)
	}
	s.NewWait().Until(func() bool { return r.String() == "next" })
	q.Close()
	s.Close()
}

func explode(v any) { panic(v) }

// t.FailNow and friends in a task end the goroutine that steps.
func TestGoexitOfATaskLeavesTheSimulatorInOrder(t *testing.T) {
	s, ended := env.NewStepped(), make(chan bool)
	go func() {
		defer close(ended)
		ok := t.Run("inner", func(t *testing.T) {
			s.Go("fails", func() { t.SkipNow() })
			s.Run()
			t.Error("went on")
		})
		if !ok {
			t.Error("inner failed")
		}
	}()
	<-ended
	r := &trace{}
	s.Go("next", func() { r.add("next") })
	s.Run()
	r.want(t, "next")
}

func TestCloseUnwindsTasks(t *testing.T) {
	s, r := env.NewSim(1), &trace{}
	forever := func() { s.NewWait().Until(func() bool { return false }) }
	q := s.NewQueue("q")
	q.Queue(env.NewWork(func() {
		defer r.add("work")
		forever()
	}))
	s.Go("user", func() {
		defer r.add("user")
		defer forever() // must not wait, nor run others
		forever()
	})
	s.Go("unstarted", func() {})
	for range 2 {
		s.Step()
	}
	s.Go("late", func() { r.add("late") })
	s.Run()
	s.Close()
	if got := r.String(); got != "late work user" && got != "late user work" {
		t.Errorf("got %q", got)
	}
	if s.Step() {
		t.Error("something is left to run")
	}
}
