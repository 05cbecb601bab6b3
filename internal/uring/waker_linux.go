package uring

import (
	"encoding/binary"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// Waker lets other goroutines interrupt a wait of the ring's goroutine. The ring's goroutine
// calls
//
//	Sleep; check for work again; if there is none, Enter(1); Awake
//
// Other goroutines first add work, then call Wake, so no wakeup is lost. They should hold the
// lock that protects the work during both: once the ring's goroutine has taken the work,
// Wake has returned, and the waker may be closed.
type Waker struct {
	fd     int
	asleep atomic.Bool
}

// NewWaker returns a waker. Attach it to a ring with [Waker.Listen].
func NewWaker() (*Waker, error) {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, err
	}
	return &Waker{fd: fd}, nil
}

// Close frees the waker. Wake must not be called any more.
func (w *Waker) Close() { unix.Close(w.fd) }

// Listen prepares e to complete on each Wake. Call it again, with a new entry, after a
// completion without More.
func (w *Waker) Listen(e *Entry) { e.poll(w.fd) }

// Sleep announces that the ring's goroutine is about to wait.
func (w *Waker) Sleep() { w.asleep.Store(true) }

// Asleep reports whether the ring's goroutine has called Sleep and nobody has woken it since.
func (w *Waker) Asleep() bool { return w.asleep.Load() }

// Awake announces that the ring's goroutine does not wait any more.
func (w *Waker) Awake() { w.asleep.Store(false) }

// Wake wakes the ring's goroutine if it has called Sleep. Each write to the eventfd completes
// the poll, so nobody needs to read its counter.
func (w *Waker) Wake() {
	if !w.asleep.Load() || !w.asleep.CompareAndSwap(true, false) {
		return
	}
	var one [8]byte
	binary.NativeEndian.PutUint64(one[:], 1)
	_, _ = unix.Write(w.fd, one[:]) // cannot fail: the counter holds up to 2^64-2
}
