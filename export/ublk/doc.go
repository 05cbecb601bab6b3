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
// because it has not completed before the second time. A server that leaves answers nothing more, so
// that its users send no requests while the driver ends it: before Linux 6.16 the driver may lose one
// that arrives then, and waits for it for ever.
//
// The server opens /dev/ublkcN. Each queue has a thread, a ring, and shared memory with a
// descriptor for each tag. The server submits a fetch command for every tag. Its completion
// means that a request has arrived. The next command commits the result and fetches the next
// request for the tag. Where the kernel copies data, those of a write are in the tag's buffer
// when it arrives, and those of a read are taken from there by the commit. An error completion means that the server has lost the tag.
// All commands of a queue must come from the thread that submitted the first fetch.
//
// When a server ends, the driver aborts its commands once for each of its queues, on a kernel thread,
// which may run late: it then meets the first commands of the next server. It counts these as given,
// so that Recovered would succeed, but requests for their tags would be lost. A server whose commands
// are aborted before it is up therefore leaves, and the device is recovered once more. Drivers before
// Linux 6.16 cannot recover a device whose server has sent the commands of some queues only, so all
// queues are opened before any sends one.
//
// # Data
//
// Since Linux 6.5 the server copies the data itself, by pread and pwrite of /dev/ublkcN at an
// offset that names queue, tag and byte. Then a tag needs no buffer before a request arrives:
// short requests have one at hand, and longer ones share a few (buffers), in the order of their
// arrival. A queue of 64 tags has 5 MiB rather than the 32 that the kernel's copies need. A
// device keeps the way that it was created with when another server recovers it.
//
// Not used, with reasons in ARCHITECTURE.md: zero copy, and devices of ordinary users.
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
