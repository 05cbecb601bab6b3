package env_test

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"udm/env"
)

// hold is a work that keeps a worker busy until it is released.
type hold struct {
	wait        env.Wait
	mu          sync.Mutex
	begun, open bool // guarded by mu
}

func newHold(e env.Env) *hold { return &hold{wait: e.NewWait()} }

func (h *hold) set(b *bool) {
	h.mu.Lock()
	*b = true
	h.mu.Unlock()
	h.wait.Wake()
}

func (h *hold) until(b *bool) {
	h.wait.Until(func() bool { h.mu.Lock(); defer h.mu.Unlock(); return *b })
}

// in returns once it keeps a worker of p busy.
func (h *hold) in(p env.Workers) {
	p.Queue(env.NewWork(func() {
		h.set(&h.begun)
		h.until(&h.open)
	}))
	h.until(&h.begun)
}

func (h *hold) letGo() { h.set(&h.open) }

func TestWorkersRunEachWorkOnceAndSoManyAtATime(t *testing.T) {
	everywhere(t, func(t *testing.T, e env.Env) {
		const workers, works = 3, 100
		p, w := e.NewWorkers("p", workers, works, nil), e.NewWait()
		var mu sync.Mutex
		inside, most, runs := 0, 0, make([]int, works) // guarded by mu
		together := false                              // guarded by mu; so many were inside at a time
		for i := range works {
			if !p.Queue(env.NewWork(func() {
				mu.Lock()
				inside++
				most = max(most, inside)
				together = together || inside == workers
				runs[i]++
				mu.Unlock()
				w.Wake()
				w.Until(func() bool { mu.Lock(); defer mu.Unlock(); return together })
				mu.Lock()
				inside--
				mu.Unlock()
			})) {
				t.Fatalf("work %d of %d is refused", i, works)
			}
		}
		p.Close()
		if most != workers || slices.ContainsFunc(runs, func(n int) bool { return n != 1 }) {
			t.Errorf("at most %d at a time; runs: %v", most, runs)
		}
	})
}

func TestFullWorkersRefuseAndTellWhenThereIsRoom(t *testing.T) {
	everywhere(t, func(t *testing.T, e env.Env) {
		r, h := &trace{}, newHold(e)
		p := e.NewWorkers("p", 1, 4, func() { r.add("room"); h.wait.Wake() })
		h.in(p)
		var took []bool
		for range 6 {
			took = append(took, p.Queue(r.work("w")))
		}
		if !slices.Equal(took, []bool{true, true, true, true, false, false}) || r.String() != "" {
			t.Fatalf("took %v, ran %q", took, r)
		}
		h.letGo()
		h.wait.Until(func() bool { return strings.Contains(r.String(), "room") })
		p.Close()
		if got := r.String(); strings.Count(got, "room") != 1 || strings.Count(got, "w") != 4 {
			t.Errorf("got %q", got)
		}
	})
}

func TestWorkersTakeAWaitingWorkOnce(t *testing.T) {
	everywhere(t, func(t *testing.T, e env.Env) {
		r, h := &trace{}, newHold(e)
		p := e.NewWorkers("p", 1, 8, nil)
		h.in(p)
		w := r.work("w")
		for range 2 {
			if !p.Queue(w) {
				t.Error("a work that waits is refused")
			}
		}
		h.letGo()
		p.Close()
		r.want(t, "w")
		if p.Queue(w) {
			t.Error("closed workers take works")
		}
		p.Close()
	})
}

// feeder uses workers as a target does: refused works wait in a list under the
// target's lock, and room queues them.
type feeder struct {
	workers env.Workers
	wait    env.Wait

	mu      sync.Mutex
	waiting []*env.Work // guarded by mu
	ran     int         // guarded by mu
}

func newFeeder(e env.Env, n, depth int) *feeder {
	f := &feeder{wait: e.NewWait()}
	f.workers = e.NewWorkers("feeder", n, depth, f.room)
	return f
}

func (f *feeder) give(w *env.Work) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.waiting) > 0 || !f.workers.Queue(w) {
		f.waiting = append(f.waiting, w)
	}
}

func (f *feeder) room() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for len(f.waiting) > 0 && f.workers.Queue(f.waiting[0]) {
		f.waiting = f.waiting[1:]
	}
}

func (f *feeder) count() {
	f.mu.Lock()
	f.ran++
	f.mu.Unlock()
	f.wait.Wake()
}

func (f *feeder) until(n int) {
	f.wait.Until(func() bool { f.mu.Lock(); defer f.mu.Unlock(); return f.ran == n })
}

// No work is lost between a refusal and the call of room.
func TestWhatWasRefusedRunsWhenThereIsRoom(t *testing.T) {
	everywhere(t, func(t *testing.T, e env.Env) {
		for _, depth := range []int{0, 1, 2, 7} {
			f := newFeeder(e, 2, depth)
			for range 100 {
				f.give(env.NewWork(f.count))
			}
			f.until(100)
			f.workers.Close()
		}
	})
}

func TestRealWorkersFromManyGoroutines(t *testing.T) {
	const users, each = 8, 500
	f := newFeeder(env.Real(), 4, 16)
	var wg sync.WaitGroup
	for range users {
		wg.Go(func() {
			for range each {
				f.give(env.NewWork(f.count))
			}
		})
	}
	f.until(users * each)
	wg.Wait()
	f.workers.Close()
}

// The seed determines the order of works and what runs between them.
func TestASeedReplaysWorkers(t *testing.T) {
	run := func(s *env.Sim) string {
		r, f := &trace{}, newFeeder(s, 3, 4)
		q := s.NewQueue("q")
		for i := range 12 {
			f.give(env.NewWork(func() {
				r.add(fmt.Sprint(i))
				q.Queue(r.work(fmt.Sprint("q", i)))
				f.count()
			}))
		}
		f.until(12)
		f.workers.Close()
		q.Close()
		return r.String()
	}
	runs := map[string]bool{}
	for seed := range uint64(20) {
		a, b := run(env.NewSim(seed)), run(env.NewSim(seed))
		if a != b {
			t.Fatalf("seed %d gives two runs:\n%s\n%s", seed, a, b)
		}
		runs[a] = true
	}
	if len(runs) < 15 {
		t.Errorf("20 seeds give only %d different runs", len(runs))
	}
	if a, b := run(env.NewStepped()), run(env.NewStepped()); a != b {
		t.Error("a stepped run differs from the next")
	}
}

func TestIdleRealWorkersHaveNoGoroutines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFeeder(env.Real(), 0, 4)
		for range 10 {
			f.give(env.NewWork(f.count))
		}
		f.until(10)
		synctest.Wait() // the bubble ends only when no goroutine is left in it
	})
}

func TestWorkersDoNotAllocate(t *testing.T) {
	f := newFeeder(env.Real(), 2, 64)
	defer f.workers.Close()
	works := make([]env.Work, 64)
	for i := range works {
		works[i].Fn = f.count
	}
	run := func() {
		f.mu.Lock()
		f.ran = 0
		f.mu.Unlock()
		for i := range works {
			f.workers.Queue(&works[i])
		}
		f.until(len(works))
	}
	// until itself allocates its condition.
	if n := testing.AllocsPerRun(100, run); n > 2 {
		t.Errorf("%v allocations for %d works", n, len(works))
	}
}
