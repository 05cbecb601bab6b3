// Package uring is the kernel's io_uring, as much of it as is used here: a ring that
// takes requests in batches and gives back completions. Linux only; [New] fails with
// [ErrUnavailable] where there is none.
//
// # One thread
//
// A Ring belongs to one goroutine, which calls runtime.LockOSThread before [New] and
// ends after [Ring.Close]: the kernel delivers completions to the thread that has
// submitted the requests (IORING_SETUP_SINGLE_ISSUER and DEFER_TASKRUN, where the
// kernel has them), in [Ring.Enter] and nowhere else. Other goroutines leave work in a
// list of their own and call [Waker.Wake].
//
// # Memory order
//
// Both indices of a queue are loaded and stored with the atomics of Go, which are
// sequentially consistent: an entry is complete before the store of the tail, and a
// completion is copied before the store of the head. Enter is a system call after
// that store.
//
// # Memory of requests
//
// Buffers, vectors and commands stay where they are, and reachable, until the
// completion of their request: the ring keeps addresses, which the garbage collector
// does not see. Close does not wait for requests; who closes has had all
// completions but those of [Ring.Poll].
package uring

import "errors"

// ErrUnavailable is the error of [New] where the kernel has no io_uring, or refuses it
// to this process.
var ErrUnavailable = errors.New("io_uring is not available")
