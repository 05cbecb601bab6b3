package uring

import (
	"encoding/binary"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// Waker ends the wait of a ring's goroutine from others. The one that is woken calls
//
//	Sleep, look once more whether there is work; if not, Enter(1); Awake
//
// and the others leave work first, then call Wake: one of the two sees the other. They
// do both under the lock under which the work is taken, so that Wake is over when it
// has been.
type Waker struct {
	fd     int
	asleep atomic.Bool
}

// NewWaker returns a waker. Its ring hears it after [Waker.Listen].
func NewWaker() (*Waker, error) {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, err
	}
	return &Waker{fd: fd}, nil
}

// Close frees the waker, after the last Wake.
func (w *Waker) Close() { unix.Close(w.fd) }

// Listen makes e complete each time that there is a Wake. It has to be called again
// after a completion without More.
func (w *Waker) Listen(e *Entry) { e.poll(w.fd) }

// Sleep announces that the ring's goroutine is about to wait.
func (w *Waker) Sleep() { w.asleep.Store(true) }

// Awake takes that back.
func (w *Waker) Awake() { w.asleep.Store(false) }

// Wake wakes the ring's goroutine if it sleeps. Each write completes the poll, so
// nobody reads the counter, which does not become full.
func (w *Waker) Wake() {
	if !w.asleep.Load() || !w.asleep.CompareAndSwap(true, false) {
		return
	}
	var one [8]byte
	binary.NativeEndian.PutUint64(one[:], 1)
	_, _ = unix.Write(w.fd, one[:]) // does not fail: the counter has room for 2^64-2
}
