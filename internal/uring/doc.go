// Package uring is a minimal interface to the kernel's io_uring: a ring accepts requests in
// batches and returns their completions. It is available only on Linux; [New] fails with
// [ErrUnavailable] if the kernel does not provide io_uring.
//
// # Threads
//
// A Ring belongs to one goroutine, which calls runtime.LockOSThread before [New] and does
// not unlock before [Ring.Close]: the kernel delivers completions only to the thread that
// submits the requests, and only in [Ring.Enter] (IORING_SETUP_SINGLE_ISSUER and
// DEFER_TASKRUN, where supported). Other goroutines put work into a list of their own and
// call [Waker.Wake].
//
// # Memory order
//
// The indices of a queue are accessed with Go's atomics, which are sequentially consistent.
// An entry is complete before its tail is stored, and a completion is copied before its
// head is stored.
//
// # Memory of requests
//
// Buffers, vectors and commands must be reachable and must not move until their request
// completes: the ring holds addresses, which the garbage collector does not see. Close does
// not wait for requests. Call it only after all requests but those of [Waker.Listen] have
// completed.
package uring

import "errors"

// ErrUnavailable is the error of [New] if the kernel has no io_uring, or does not let this
// process use it.
var ErrUnavailable = errors.New("io_uring is not available")
