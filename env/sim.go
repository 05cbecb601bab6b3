package env

import (
	"cmp"
	"container/heap"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"runtime/debug"
	"slices"
	"strings"
	"time"
)

// Sim is an Env in which everything runs in steps, on one thread, in virtual
// time. Works and tasks are coroutines: one that waits in Wait.Until yields to
// the scheduler and continues when its condition holds.
//
// A Sim and everything built on it belong to one goroutine at a time: the caller
// of Step, Run, Advance, or of an Until outside any task. A caller that waits
// outside a task steps the scheduler itself until its condition holds. If nothing
// is left to run, it panics with a description of what waits: in a simulator a
// hang is a bug.
type Sim struct {
	rng    *rand.Rand
	random bool // run ready tasks in random order; else the oldest first
	now    time.Duration
	seq    uint64
	tasks  []*task // every live task and every queue with works
	timers timerHeap
	cur    *task // the running task; nil outside

	closing bool // Close is unwinding the tasks
}

// NewSim returns a simulator whose every choice comes from seed.
func NewSim(seed uint64) *Sim {
	return &Sim{rng: rand.New(rand.NewPCG(seed, 0x9e3779b97f4a7c15)), random: true}
}

// NewStepped returns a simulator that runs works and tasks in the order in which
// they were queued. It is for tests that step an owner by hand.
func NewStepped() *Sim {
	s := NewSim(1)
	s.random = false
	return s
}

// task is a coroutine, or a queue's entry in the scheduler.
type task struct {
	name  string
	seq   uint64 // age of its next work; the oldest runs first
	start func() // what to run next; nil when resumed or nothing queued
	next  func() (struct{}, bool)
	stop  func()
	yield func(struct{}) bool
	cond  func() bool // the condition that a suspended coroutine waits for
	queue *simQueue   // the queue that the task serves; nil for Go
}

var errKilled = errors.New("env: simulation closed")

func (s *Sim) Now() time.Duration { return s.now }
func (s *Sim) Uint64() uint64     { return s.rng.Uint64() }
func (s *Sim) NewWait() Wait      { return simWait{s} }

// Go adds a task that the scheduler runs beside the queues. It simulates a user's
// thread.
func (s *Sim) Go(name string, fn func()) {
	s.tasks = append(s.tasks, &task{name: name, seq: s.nextSeq(), start: fn})
}

func (s *Sim) nextSeq() uint64 { s.seq++; return s.seq }

// ready reports whether t can run. It evaluates t's condition, which may acquire
// something for t (a lock) when it holds: t must then be resumed at once.
func (t *task) ready() bool {
	if t.next != nil {
		return t.cond == nil || t.cond()
	}
	return t.start != nil || t.queue != nil && len(t.queue.works) > 0
}

// Step runs one work or task until it ends or waits, or fires a timer that is
// due, and reports whether there was one. It does not advance time.
func (s *Sim) Step() bool {
	for _, t := range s.order() {
		if t != s.cur && t.ready() {
			s.resume(t)
			return true
		}
	}
	if len(s.timers) > 0 && s.timers[0].at <= s.now {
		s.fire()
		return true
	}
	return false
}

// order returns the tasks in the order in which Step checks them.
func (s *Sim) order() []*task {
	ts := slices.Clone(s.tasks)
	if s.random {
		s.rng.Shuffle(len(ts), func(i, j int) { ts[i], ts[j] = ts[j], ts[i] })
	} else {
		slices.SortFunc(ts, func(a, b *task) int { return cmp.Compare(a.seq, b.seq) })
	}
	return ts
}

// Run steps until nothing can run without advancing time.
func (s *Sim) Run() {
	for s.Step() {
	}
}

// Advance advances time by d, firing timers in order and running what they wake.
func (s *Sim) Advance(d time.Duration) {
	end := s.now + d
	s.Run()
	for len(s.timers) > 0 && s.timers[0].at <= end {
		s.fire()
		s.Run()
	}
	s.now = end
}

// Pending counts the timers that are armed.
func (s *Sim) Pending() int { return len(s.timers) }

// AfterFunc calls fn from the scheduler, outside any task, once d has passed. It
// simulates the latency of devices. fn must not block.
func (s *Sim) AfterFunc(d time.Duration, fn func()) {
	heap.Push(&s.timers, &simTimer{at: s.now + d, seq: s.nextSeq(), fn: fn})
}

// Close ends every waiting task: its stack unwinds by a panic that Close
// recovers. Deferred functions run but do not wait. The state that the tasks
// leave behind must not be used. Close must not be called from a task.
func (s *Sim) Close() {
	s.closing = true
	defer func() { s.closing = false }()
	for _, t := range s.tasks {
		if t.stop != nil {
			t.stop()
		}
	}
	s.tasks, s.timers = nil, nil
}

func (s *Sim) fire() {
	t := heap.Pop(&s.timers).(*simTimer)
	s.now = max(s.now, t.at)
	t.fn()
}

// resume runs t until it waits or ends. A panic or a Goexit of the task
// propagates from here and leaves the simulator consistent.
func (s *Sim) resume(t *task) {
	if t.next == nil {
		s.begin(t)
	}
	prev, more := s.cur, false
	s.cur, t.cond = t, nil
	defer func() {
		s.cur = prev
		if !more {
			s.end(t)
		}
	}()
	_, more = t.next()
}

// TaskPanic is the value with which Step panics when a task or a work panicked.
// It preserves the coroutine's stack.
type TaskPanic struct {
	Task  string
	Value any // the original panic value
	Stack []byte
}

func (p *TaskPanic) Error() string {
	return fmt.Sprintf("%v\n\nin task %q of the simulator:\n%s", p.Value, p.Task, p.Stack)
}

// begin starts a coroutine for the task's next function.
func (s *Sim) begin(t *task) {
	fn := t.start
	if t.queue != nil {
		fn = t.queue.pop()
	}
	t.start = nil
	t.next, t.stop = iter.Pull(func(yield func(struct{}) bool) {
		defer func() {
			if r := recover(); r != nil && r != errKilled {
				panic(&TaskPanic{t.name, r, debug.Stack()})
			}
		}()
		t.yield = yield
		fn()
	})
}

func (s *Sim) end(t *task) {
	t.next, t.stop, t.yield = nil, nil, nil
	if t.queue != nil {
		t.queue.done++
		if len(t.queue.works) > 0 {
			t.seq = s.nextSeq()
			return
		}
		t.queue.task = nil
	}
	if i := slices.Index(s.tasks, t); i >= 0 {
		s.tasks = slices.Delete(s.tasks, i, i+1)
	}
}

type simWait struct{ s *Sim }

func (w simWait) Wake() {}

func (w simWait) Until(cond func() bool) { w.s.until(cond) }

func (s *Sim) until(cond func() bool) {
	if s.cur != nil && !s.closing {
		if !cond() {
			s.cur.sleep(cond)
		}
		return
	}
	for !cond() {
		switch {
		case s.closing:
			panic(errKilled)
		case s.Step():
		case len(s.timers) > 0:
			s.fire()
		default:
			panic("env: deadlock, nothing can run: " + s.String())
		}
	}
}

// sleep yields until Step finds that cond holds.
func (t *task) sleep(cond func() bool) {
	t.cond = cond
	if !t.yield(struct{}{}) {
		panic(errKilled)
	}
}

// String describes the waiting tasks and the number of armed timers.
func (s *Sim) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "at %v, %d timers armed", s.now, len(s.timers))
	for _, t := range s.tasks {
		state := "can run"
		if t.cond != nil {
			state = "waits"
		}
		fmt.Fprintf(&b, "; %s %s", t.name, state)
	}
	return b.String()
}
