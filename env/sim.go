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

// Sim is an Env in which nothing happens unless it is stepped, on one thread,
// in virtual time. Works and tasks are coroutines: one that waits in Wait.Until
// gives way to the scheduler and goes on when its condition holds.
//
// A Sim and everything built on it belong to one goroutine at a time: the
// caller of Step, Run, Advance, or of an Until outside any task. A caller that
// waits outside a task steps the scheduler itself until its condition holds;
// should nothing be left that could make it hold, it panics with a description
// of what waits: in a simulator a hang is a finding.
type Sim struct {
	rng    *rand.Rand
	random bool // pick at random among what can run; else the oldest first
	now    time.Duration
	seq    uint64
	tasks  []*task // every live task and every queue with something to run
	timers timerHeap
	cur    *task // the running task; nil outside

	closing bool // Close is unwinding the tasks
}

// NewSim returns a simulator whose every choice comes from seed.
func NewSim(seed uint64) *Sim {
	return &Sim{rng: rand.New(rand.NewPCG(seed, 0x9e3779b97f4a7c15)), random: true}
}

// NewStepped returns a simulator that runs what can run in the order in which
// it was queued: the one for tests that step an owner by hand.
func NewStepped() *Sim {
	s := NewSim(1)
	s.random = false
	return s
}

// task is a coroutine, or a queue's place in the scheduler.
type task struct {
	name  string
	seq   uint64 // age of what it has to do; the oldest runs first
	start func() // what to run next; nil when resumed or nothing queued
	next  func() (struct{}, bool)
	stop  func()
	yield func(struct{}) bool
	cond  func() bool // what a suspended coroutine waits for
	queue *simQueue   // the queue that the task serves; nil for Go
}

var errKilled = errors.New("env: simulation closed")

func (s *Sim) Now() time.Duration { return s.now }
func (s *Sim) Uint64() uint64     { return s.rng.Uint64() }
func (s *Sim) NewWait() Wait      { return simWait{s} }

// Go adds a task that the scheduler runs beside the queues: in a simulator, a
// user's thread of control.
func (s *Sim) Go(name string, fn func()) {
	s.tasks = append(s.tasks, &task{name: name, seq: s.nextSeq(), start: fn})
}

func (s *Sim) nextSeq() uint64 { s.seq++; return s.seq }

// ready reports whether t can run. It asks a condition, which may take
// something for t when it holds (a lock): t must then be resumed at once.
func (t *task) ready() bool {
	if t.next != nil {
		return t.cond == nil || t.cond()
	}
	return t.start != nil || t.queue != nil && len(t.queue.works) > 0
}

// Step runs one work or task until it ends or waits, or fires a timer whose time
// has come, and reports whether there was one. It does not move time.
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

// order is the tasks in the order in which they are asked whether they can run.
func (s *Sim) order() []*task {
	ts := slices.Clone(s.tasks)
	if s.random {
		s.rng.Shuffle(len(ts), func(i, j int) { ts[i], ts[j] = ts[j], ts[i] })
	} else {
		slices.SortFunc(ts, func(a, b *task) int { return cmp.Compare(a.seq, b.seq) })
	}
	return ts
}

// Run steps until nothing can run without time moving on.
func (s *Sim) Run() {
	for s.Step() {
	}
}

// Advance moves time by d, firing timers in order and running what they wake.
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

// AfterFunc calls fn from the scheduler, outside any task, once d has passed:
// for simulated devices, whose latency it is. fn must not block.
func (s *Sim) AfterFunc(d time.Duration, fn func()) {
	heap.Push(&s.timers, &simTimer{at: s.now + d, seq: s.nextSeq(), fn: fn})
}

// Close ends every task that waits: its stack unwinds by a panic that Close
// catches. What it defers runs, but does not wait any more. The state that the
// tasks leave behind is not to be used. Close must not be called from a task.
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

// resume runs t until it waits or ends. A panic or a Goexit of the task comes
// out of it here, and leaves the simulator in order.
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

// TaskPanic is what Step panics with when a task or a work panicked: the
// coroutine's own stack would be lost otherwise.
type TaskPanic struct {
	Task  string
	Value any // what it panicked with
	Stack []byte
}

func (p *TaskPanic) Error() string {
	return fmt.Sprintf("%v\n\nin task %q of the simulator:\n%s", p.Value, p.Task, p.Stack)
}

// begin makes a coroutine of the task's next function.
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

// sleep gives way until Step finds that cond holds.
func (t *task) sleep(cond func() bool) {
	t.cond = cond
	if !t.yield(struct{}{}) {
		panic(errKilled)
	}
}

// String lists what waits and what is armed.
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
