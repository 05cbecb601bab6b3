// Package env hands work, time and chance to everything below an export.
//
// No device, target or metadata library starts a goroutine, reads a clock or
// draws a random number by itself: it gets an Env when it is made. In
// production ([Real]) a queue is a goroutine and time is the clock's. In tests
// and in the simulator ([Sim]) one single-threaded scheduler runs everything,
// steps it by hand or at random from a seed, and time is virtual, so that a
// printed seed replays a whole stack.
//
// # The five primitives
//
//   - [Queue] is the kernel's ordered workqueue: works run one at a time, in the
//     order in which they were queued. Whoever makes a queue is the owner of the
//     state that only its works touch.
//   - [Workers] is its unbound workqueue: works run side by side, in any order, and
//     how many may wait is bounded.
//   - [Work] is the kernel's work_struct: a function that is queued at most once
//     at a time. Queues are therefore bounded by the number of works.
//   - [Wait] is the kernel's wait queue: block until a condition holds.
//   - Now and Uint64 are time and chance.
//
// Lock order: the locks of a Wait, a queue and workers are leaves; no function of
// the caller runs under them, except the condition given to Wait.Until, which must
// take no lock that is held around Wait.Wake.
package env

import "time"

// Env is work, time and chance. It is safe for concurrent use.
type Env interface {
	// Now is monotonic time since some moment in the past.
	Now() time.Duration
	// Uint64 draws a uniformly distributed random number.
	Uint64() uint64
	// NewQueue makes an ordered queue; name is for people.
	NewQueue(name string) Queue
	// NewWorkers makes n workers, or as many as there are processors for n 0, for
	// which at most depth works wait, at least one; room may be nil.
	NewWorkers(name string, n, depth int, room func()) Workers
	// NewWait makes a wait queue.
	NewWait() Wait
}

// Queue runs works one at a time in the order in which they were queued. A
// running work counts as not queued, so it may queue itself again.
type Queue interface {
	// Queue appends w unless it is queued already and reports whether it did.
	// It never blocks and never runs w on the caller's stack. A work belongs
	// to one queue at a time. After Close it reports false.
	Queue(w *Work) bool
	// QueueAfter arms w to be queued after d, replacing the time of an earlier
	// QueueAfter of w that has not come yet. A work that is in the queue
	// already stays there and is armed as well.
	QueueAfter(w *Work, d time.Duration)
	// Cancel takes w out of the queue and disarms it, and reports whether
	// there was anything to take. It does not wait for a running w.
	Cancel(w *Work) bool
	// Flush waits until every work that was queued before has run, armed ones
	// excepted. It must not be called from a work of this queue.
	Flush()
	// Close disarms what is armed, runs what is queued, and waits for it. It
	// must not be called from a work of this queue. Closing twice is allowed.
	Close()
}

// Work is a function to run on a [Queue] or by [Workers]. Fn is set before first
// use and stays.
type Work struct {
	Fn func()

	queued bool // guarded by the lock of the queue or workers that w belongs to
}

// NewWork returns a work that runs fn.
func NewWork(fn func()) *Work { return &Work{Fn: fn} }

// Wait is a place to block until a condition holds.
type Wait interface {
	// Until returns once cond reports true. cond is called at least once, then
	// after every Wake; it must be quick and must not block.
	Until(cond func() bool)
	// Wake makes every Until call look at its condition again. What the
	// condition reads must have been changed before Wake is called.
	Wake()
}
