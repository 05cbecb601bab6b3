// Package vhost serves a device to virtual machines over vhost-user-blk: QEMU and
// others hand their guest's memory and eventfds over a Unix socket, and the
// guest's requests are taken from rings in that memory. One socket is one
// device, with one front end at a time. Linux only.
//
// # Protocol
//
// Messages of 12 bytes (request, flags, size; native byte order) and a payload,
// with file descriptors beside them. message.go is the table of requests;
// [session] takes a message as bytes and answers in bytes. A message that makes no
// sense ends the connection, unless the front end asked for an answer
// (NEED_REPLY): then that is "failed" and nothing has changed.
//
// # Goroutines
//
// One per connection reads messages. One per running ring, on a thread of its own,
// takes requests, submits them as bios and gives them back; the reader changes a
// ring by functions that the ring's goroutine runs between two requests. A ring
// that stops waits for its bios. Ends on other goroutines leave the request in a
// list and wake the ring by an eventfd that is ours.
//
// Server.mu, broken.mu, channel.mu and late.mu are leaves: none is held while another is
// taken, or across I/O. (late.mu is across the write that wakes the worker, channel.mu
// across our message to the front end; neither blocks.)
//
// # Requests that outlive the server
//
// A front end that keeps INFLIGHT memory for us (GET_INFLIGHT_FD, SET_INFLIGHT_FD)
// loses no request when the server dies: the rings note there what they have taken
// (virtq.Inflight), and the next server begins with that, whatever position the
// front end tells. Requests may be carried out twice, in their order; the guest has
// not seen the first time.
//
// # Guest memory
//
// The front end shares files and may cut them at any time, which turns a touch
// into SIGBUS. A memfd that is sealed against that, or that lets us seal it, is
// Fixed: bios work on guest memory itself, with [blk.Unstable], since a guest
// may write to it meanwhile. All else is copied, by the ring's goroutine, where a
// fault is a panic that ends the connection and nothing else. A table of memory
// that is replaced stays mapped until the last request that uses it is back.
package vhost
