package env_test

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"udm/env"
)

// everywhere runs a test in each environment. The real one runs in a synctest
// bubble, where timers take no time. The test must wait only in env.Wait.
func everywhere(t *testing.T, run func(t *testing.T, e env.Env)) {
	t.Run("real", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) { run(t, env.Real()) })
	})
	t.Run("stepped", func(t *testing.T) { run(t, env.NewStepped()) })
	for seed := range uint64(5) {
		t.Run(fmt.Sprint("sim", seed), func(t *testing.T) { run(t, env.NewSim(seed)) })
	}
}

// trace is a list that works on any goroutine add to.
type trace struct {
	mu    sync.Mutex
	names []string
}

func (r *trace) add(s string) {
	r.mu.Lock()
	r.names = append(r.names, s)
	r.mu.Unlock()
}

func (r *trace) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return strings.Join(r.names, " ")
}

func (r *trace) work(s string) *env.Work { return env.NewWork(func() { r.add(s) }) }

func (r *trace) want(t *testing.T, want string) {
	t.Helper()
	if got := r.String(); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestQueueRunsInOrderOneAtATime(t *testing.T) {
	everywhere(t, func(t *testing.T, e env.Env) {
		q := e.NewQueue("q")
		var want []int
		var got []int // touched by works of q only, and after Flush
		running := false
		for i := range 200 {
			want = append(want, i)
			q.Queue(env.NewWork(func() {
				if running {
					t.Error("two at a time")
				}
				running = true
				got = append(got, i)
				running = false
			}))
		}
		q.Flush()
		if !slices.Equal(got, want) {
			t.Errorf("ran in the order %v", got)
		}
		q.Close()
	})
}

func TestAWorkIsQueuedAtMostOnce(t *testing.T) {
	everywhere(t, func(t *testing.T, e env.Env) {
		q, r := e.NewQueue("q"), &trace{}
		hold, open := e.NewWait(), false
		var mu sync.Mutex
		q.Queue(env.NewWork(func() {
			hold.Until(func() bool { mu.Lock(); defer mu.Unlock(); return open })
		}))
		w := r.work("w")
		if !q.Queue(w) || q.Queue(w) {
			t.Error("queued other than once")
		}
		q.Queue(r.work("x"))
		mu.Lock()
		open = true
		mu.Unlock()
		hold.Wake()
		q.Flush()
		if !q.Queue(w) {
			t.Error("a work that has run counts as queued")
		}
		q.Close()
		r.want(t, "w x w")
	})
}

func TestSelfQueueingWorkGivesWay(t *testing.T) {
	everywhere(t, func(t *testing.T, e env.Env) {
		q, r := e.NewQueue("q"), &trace{}
		done, ready := e.NewWait(), false
		var mu sync.Mutex
		n := 0
		var w *env.Work
		w = env.NewWork(func() {
			r.add("w")
			if n++; n == 3 {
				mu.Lock()
				ready = true
				mu.Unlock()
				done.Wake()
				return
			}
			q.Queue(w)
			q.Queue(r.work("x"))
		})
		q.Queue(w)
		done.Until(func() bool { mu.Lock(); defer mu.Unlock(); return ready })
		q.Close()
		r.want(t, "w w x w x")
	})
}

func TestQueueAfterRunsInTheOrderOfTime(t *testing.T) {
	everywhere(t, func(t *testing.T, e env.Env) {
		q, r := e.NewQueue("q"), &trace{}
		start := e.Now()
		last, done := e.NewWait(), false
		var mu sync.Mutex
		at := func(name string, d time.Duration) {
			q.QueueAfter(env.NewWork(func() {
				if got := e.Now() - start; got != d {
					t.Errorf("%s ran after %v, want %v", name, got, d)
				}
				r.add(name)
			}), d)
		}
		at("c", 3*time.Second)
		at("a", time.Second)
		at("b", 2*time.Second)
		twice := env.NewWork(func() { r.add("late"); mu.Lock(); done = true; mu.Unlock(); last.Wake() })
		q.QueueAfter(twice, time.Millisecond)
		q.QueueAfter(twice, time.Hour)
		never := r.work("never")
		q.QueueAfter(never, time.Minute)
		if !q.Cancel(never) || q.Cancel(never) {
			t.Error("cancel of an armed work")
		}
		last.Until(func() bool { mu.Lock(); defer mu.Unlock(); return done })
		q.Close()
		r.want(t, "a b c late")
	})
}

func TestQueueAfterNothingNeedsNoTime(t *testing.T) {
	everywhere(t, func(t *testing.T, e env.Env) {
		q, r := e.NewQueue("q"), &trace{}
		q.QueueAfter(r.work("now"), 0)
		q.QueueAfter(r.work("past"), -time.Second)
		start := e.Now()
		if s, ok := e.(*env.Sim); ok {
			s.Run()
		} else {
			synctest.Wait()
		}
		if e.Now() != start || len(strings.Fields(r.String())) != 2 {
			t.Errorf("ran %q in %v", r, e.Now()-start)
		}
		q.Close()
	})
}

func TestCancelAndClose(t *testing.T) {
	everywhere(t, func(t *testing.T, e env.Env) {
		q, r := e.NewQueue("q"), &trace{}
		hold, open := e.NewWait(), false
		var mu sync.Mutex
		// The first work keeps the queue busy until everything is set up.
		q.Queue(env.NewWork(func() {
			hold.Until(func() bool { mu.Lock(); defer mu.Unlock(); return open })
			r.add("first")
		}))
		a, b := r.work("a"), r.work("b")
		q.Queue(a)
		q.Queue(b)
		if !q.Cancel(a) || q.Cancel(a) {
			t.Error("cancel of a queued work")
		}
		if !q.Queue(a) {
			t.Error("a cancelled work cannot be queued")
		}
		q.QueueAfter(r.work("armed"), time.Hour)
		mu.Lock()
		open = true
		mu.Unlock()
		hold.Wake()
		q.Close()
		r.want(t, "first b a")
		q.QueueAfter(a, 0)
		if q.Queue(a) || q.Cancel(a) {
			t.Error("a closed queue takes works")
		}
		q.Close()
		r.want(t, "first b a")
	})
}

func TestFlushWaitsForWhatWasQueuedBefore(t *testing.T) {
	everywhere(t, func(t *testing.T, e env.Env) {
		q, r := e.NewQueue("q"), &trace{}
		q.Flush()
		q.QueueAfter(r.work("armed"), time.Hour)
		for range 3 {
			q.Queue(r.work("x"))
		}
		q.Flush()
		r.want(t, "x x x")
		q.Close()
	})
}

// Users hold the mutex while they wait for a timer.
func TestMutexIsHeldAcrossWaits(t *testing.T) {
	everywhere(t, func(t *testing.T, e env.Env) {
		m, w, clock := env.NewMutex(e), e.NewWait(), e.NewQueue("clock")
		var mu sync.Mutex
		inside, ends, ticks := 0, 0, 0 // guarded by mu
		locked := func(f func() bool) bool { mu.Lock(); defer mu.Unlock(); return f() }
		tick := env.NewWork(func() {
			locked(func() bool { ticks++; return true })
			w.Wake()
		})
		var queues []env.Queue
		for range 4 {
			q := e.NewQueue("user")
			queues = append(queues, q)
			q.Queue(env.NewWork(func() {
				m.Lock()
				var next int
				if !locked(func() bool { inside++; next = ticks + 1; return inside == 1 }) {
					t.Error("two hold the mutex")
				}
				clock.QueueAfter(tick, time.Second)
				w.Until(func() bool { return locked(func() bool { return ticks >= next }) })
				locked(func() bool { inside--; ends++; return true })
				m.Unlock()
				w.Wake()
			}))
		}
		w.Until(func() bool { return locked(func() bool { return ends == 4 }) })
		for _, q := range append(queues, clock) {
			q.Close()
		}
		if !m.TryLock() || m.TryLock() {
			t.Error("the mutex is not free after all")
		}
	})
}

func TestMutexPassesFromHolderToWaiter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, done := env.NewMutex(env.Real()), false
		m.Lock()
		go func() {
			m.Lock()
			done = true
			m.Unlock()
		}()
		synctest.Wait()
		if done {
			t.Error("two hold the mutex")
		}
		m.Unlock()
		synctest.Wait()
		if !done {
			t.Error("the waiter does not come in")
		}
	})
}

func TestRealFlushWaitsForTheRunningAndTheQueuedOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q, step := env.Real().NewQueue("q"), make(chan bool)
		held := func() *env.Work { return env.NewWork(func() { <-step }) }
		q.Queue(held())
		synctest.Wait()
		q.Queue(held())
		flushed := false
		go func() { q.Flush(); flushed = true }()
		synctest.Wait()
		q.Queue(held())
		for n := range 3 {
			if flushed != (n == 2) {
				t.Errorf("flushed %v after %d works", flushed, n)
			}
			step <- true
			synctest.Wait()
		}
		q.Close()
	})
}

// Flush waits for a work but not for the works that this one queues.
func TestFlushDoesNotWaitForWhatComesLater(t *testing.T) {
	everywhere(t, func(t *testing.T, e env.Env) {
		q, w, open := e.NewQueue("q"), e.NewWait(), false
		var mu sync.Mutex
		later := env.NewWork(func() {
			w.Until(func() bool { mu.Lock(); defer mu.Unlock(); return open })
		})
		q.Queue(env.NewWork(func() { q.Queue(later) }))
		q.Flush()
		mu.Lock()
		open = true
		mu.Unlock()
		w.Wake()
		q.Close()
	})
}

// An idle queue has no goroutine, so a queue that is never closed leaks nothing.
func TestIdleRealQueueHasNoGoroutine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q, r := env.Real().NewQueue("q"), &trace{}
		q.Queue(r.work("x"))
		q.Flush()
		synctest.Wait() // the bubble ends only when no goroutine is left in it
		r.want(t, "x")
	})
}

func TestRealQueueFromManyGoroutines(t *testing.T) {
	q := env.Real().NewQueue("q")
	n := 0 // touched by works of q only, and after Close
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 500 {
				w := env.NewWork(func() { n++ })
				q.Queue(w)
				if q.Cancel(w) {
					q.Queue(w)
				}
				q.Flush()
			}
		})
	}
	wg.Wait()
	q.Close()
	if n != 8*500 {
		t.Errorf("%d works ran", n)
	}
}

func TestRealChanceAndTimeMoveOn(t *testing.T) {
	e := env.Real()
	if a, b := e.Now(), e.Now(); b < a {
		t.Error("time goes back")
	}
	if a, b := e.Uint64(), e.Uint64(); a == b {
		t.Error("chance repeats")
	}
}
