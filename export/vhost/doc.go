// Package vhost serves a device to virtual machines over vhost-user-blk. QEMU and
// others pass their guest's memory and eventfds over a Unix socket, and the server
// takes the guest's requests from rings in that memory. A socket serves one device to
// one front end at a time. Linux only.
//
// # Protocol
//
// Messages have 12 bytes (request, flags, size; native byte order) and a payload,
// with file descriptors passed alongside. message.go has the table of requests;
// [session] takes a message as bytes and answers in bytes. An invalid message ends
// the connection, unless the front end requested a reply (NEED_REPLY): then the reply
// is a failure and nothing has changed.
//
// # Goroutines
//
// Each connection has a goroutine that reads messages. Each running ring has one with
// a thread of its own: it takes requests, submits them as bios and puts them back.
// The reader changes a ring by sending functions that the ring's goroutine runs
// between two requests. A ring that stops waits for its bios. A bio that ends on
// another goroutine adds its request to a list and wakes the ring by an eventfd of
// the server. Where processors are spare, a ring whose requests follow each other closely
// is watched for a moment before its goroutine sleeps: see polling.
//
// A server that is handed over ([Server.Hand]) interrupts the reader between two messages;
// the reader stops the rings and leaves the session to the next server.
//
// Server.mu, broken.mu, channel.mu and late.mu are leaves: no other lock is taken
// under them, and they are not held across I/O. (late.mu is held across the write
// that wakes the worker, channel.mu across the message to the front end; neither
// blocks.)
//
// # Requests that outlive the server
//
// A front end that provides INFLIGHT memory (GET_INFLIGHT_FD, SET_INFLIGHT_FD) loses
// no request when the server dies. The rings record in it which requests they have
// taken (virtq.InflightLen), and the next server starts with those, whatever position
// the front end sends. Requests may be executed twice, in their order; the guest has
// not seen the first time.
//
// What a server has answered must be there for the next one, because the guest does not
// learn that the server was killed: commit has the flush for devices that would lose it.
// Of a disk in the memory of a process nothing is there. A guest that has used one with
// another process is refused: it shows by the record, which names the process, or by rings
// that do not begin. The record also holds the cache mode that the guest has chosen.
//
// # Guest memory
//
// The front end shares files and may truncate them at any time, which turns an access
// into SIGBUS. A memfd that is sealed against this, or that the server can seal, is
// Fixed: bios use guest memory directly, with [blk.Unstable], because the guest may
// write to it meanwhile. All other memory is copied by the ring's goroutine, where a
// fault becomes a panic that only ends the connection. When guest memory is replaced,
// the old mapping stays until the last request that uses it is complete.
//
// For live migration the rings mark the pages that they write: see dirty.
package vhost
