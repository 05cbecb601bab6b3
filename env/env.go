// Package env provides work, time and randomness to everything below an export.
//
// No device, target or metadata library starts a goroutine, reads a clock or
// draws a random number by itself: it receives an Env at construction. In
// production ([Real]) a queue is a goroutine and time comes from the clock. In
// tests and in the simulator ([Sim]) a single-threaded scheduler runs everything,
// step by step or in random order from a seed, and time is virtual, so that a
// printed seed replays a whole stack.
//
// # The five primitives
//
//   - [Queue] is the kernel's ordered workqueue: works run one at a time, in the
//     order in which they were queued. The creator of a queue owns the state that
//     only its works touch.
//   - [Workers] is the kernel's unbound workqueue: works run in parallel, in any
//     order, and a bounded number may wait.
//   - [Work] is the kernel's work_struct: a function that is queued at most once
//     at a time. Queues are therefore bounded by the number of works.
//   - [Wait] is the kernel's wait queue: block until a condition holds.
//   - Now and Uint64 provide time and randomness.
//
// Lock order: the locks of a Wait, a queue and workers are leaves. No function of
// the caller runs under them, except the condition passed to Wait.Until, which
// must not take a lock that is held around Wait.Wake.
package env

import "time"

// Env provides work, time and randomness. It is safe for concurrent use.
type Env interface {
	// Now returns monotonic time since some moment in the past.
	Now() time.Duration
	// Uint64 draws a uniformly distributed random number. In production nobody can
	// predict it: salts and vectors of ciphers are made of it.
	Uint64() uint64
	// NewQueue makes an ordered queue; name is for display.
	NewQueue(name string) Queue
	// NewWorkers makes n workers; n 0 means one per processor. At most max(1,
	// depth) works wait for them. room may be nil.
	NewWorkers(name string, n, depth int, room func()) Workers
	// NewWait makes a wait queue.
	NewWait() Wait
}

// Queue runs works one at a time in the order in which they were queued. A
// running work counts as not queued, so it may queue itself again.
type Queue interface {
	// Queue appends w unless it is queued already, and reports whether it did. It
	// never blocks and never runs w on the caller's stack. A work belongs to one
	// queue at a time. After Close, Queue returns false.
	Queue(w *Work) bool
	// QueueAfter arms w to be queued after d. It replaces an earlier QueueAfter
	// of w that is still armed. A work that is queued already stays queued
	// and is armed as well.
	QueueAfter(w *Work, d time.Duration)
	// Cancel removes w from the queue and disarms it, and reports whether it was
	// queued or armed. It does not wait for a running w.
	Cancel(w *Work) bool
	// Flush waits until every work queued before the call has run; it does not
	// wait for armed works. It must not be called from a work of this queue.
	Flush()
	// Close disarms all armed works, runs the queued ones, and waits for them. It
	// must not be called from a work of this queue. Closing twice is allowed.
	Close()
}

// Work is a function to run on a [Queue] or by [Workers]. Fn is set before first
// use and does not change.
type Work struct {
	Fn func()

	queued bool // guarded by the lock of the queue or workers that w belongs to
}

// NewWork returns a work that runs fn.
func NewWork(fn func()) *Work { return &Work{Fn: fn} }

// Wait lets callers block until a condition holds.
type Wait interface {
	// Until returns once cond reports true. cond is called at least once, then
	// after every Wake; it must be quick and must not block.
	Until(cond func() bool)
	// Wake makes every Until call check its condition again. Change the state
	// that the condition reads before calling Wake.
	Wake()
}
