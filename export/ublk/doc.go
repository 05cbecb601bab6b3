// Package ublk creates block devices, /dev/ublkbN, that this process serves. It uses the
// kernel's ublk driver over io_uring, in Linux 6.1 and later.
//
// # Protocol
//
// Commands to /dev/ublk-control ([Control]) create and delete a block device. Each is a
// URING_CMD on a separate ring:
//
//	Add ──► Serve ──► Start ──► live ──► Stop ──► the server ends ──► Delete
//	                              │ ▲
//	   the server leaves, or dies ▼ │ Recovered
//	                            quiesced ──► Recover ──► Serve
//
// Start waits for Serve and reads the partition table through it. Stop waits for requests.
// While a device is quiesced, requests wait in the kernel. Requests that the old server had
// not completed are sent to the next one, so a write may be executed twice. That is safe,
// because it has not completed before the second time.
//
// The server opens /dev/ublkcN. Each queue has a thread, a ring, and shared memory with a
// descriptor for each tag. The server submits a fetch command for every tag. Its completion
// means that a request has arrived; write data are already in the tag's buffer. The next
// command commits the result, copying read data from the buffer, and fetches the next
// request for the tag. An error completion means that the server has lost the tag.
// All commands of a queue must come from the thread that submitted the first fetch.
//
// Kernels before 6.4 have the same commands under different numbers ([Control.Legacy]).
//
// # Goroutines
//
// Each queue has a goroutine that is locked to its thread and submits bios. The thread exits
// with the goroutine, which the kernel takes for the end of the server. Bios that complete
// on other goroutines are put into a list, and the queue is woken. late.mu is a leaf; it is
// held during the write that wakes the queue, which does not block.
//
// The layouts are those of include/uapi/linux/ublk_cmd.h. The package is Linux only.
package ublk
