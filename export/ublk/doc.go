// Package ublk makes block devices of this machine's kernel, /dev/ublkbN, whose
// requests this process answers: the kernel's ublk driver, Linux 6.1 and later, over
// io_uring. Linux only.
//
// # Protocol
//
// A block device begins and ends with commands to /dev/ublk-control ([Control]), each a
// URING_CMD on a ring of its own:
//
//	Add ──► Serve ──► Start ──► live ──► Stop ──► the server ends ──► Delete
//	                              │ ▲
//	   the server leaves, or dies ▼ │ Recovered
//	                            quiesced ──► Recover ──► Serve
//
// Start waits for Serve, and reads partitions through it; Stop waits for requests.
// While it is quiesced, requests wait in the kernel, and those that the server had are
// sent again to the next one: a write may be carried out twice, in which nobody can
// see the first time.
//
// The server has a file, /dev/ublkcN, and for each queue a thread, a ring, and memory in
// which the kernel describes a request for each tag. It fetches a request for every
// tag; a completion says that one is there, its data already copied to the tag's
// buffer. One command gives the answer (data of a read are copied from the buffer) and
// fetches the next. A completion that is an error means that the tag is ours no more.
// All commands of a queue come from the thread that has fetched first.
//
// Kernels before 6.4 have the same commands under other numbers ([Control.Legacy]).
//
// # Goroutines
//
// One per queue, locked to its thread, which ends with it: the kernel takes that as the
// end of the server. It submits bios; those that end on other goroutines wait in a list,
// and the queue is woken. late.mu is a leaf. (It is across the write that wakes the
// queue, which does not block.)
//
// The layouts are those of include/uapi/linux/ublk_cmd.h.
package ublk
