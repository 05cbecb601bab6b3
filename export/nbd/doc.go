// Package nbd serves block devices to NBD clients: qemu, libnbd, the Linux
// kernel, nbdkit. It uses a [blk.Device] and knows nothing of its implementation.
//
//	s, err := nbd.New(nbd.Config{Exports: nbd.Fixed{{Info: nbd.Info{Name: "disk"}, Device: export.Check(dev)}}})
//	l, err := net.Listen("unix", "nbd.sock")
//	go s.Serve(l)
//	…
//	s.Shutdown(ctx)
//
// # Protocol
//
// Fixed newstyle handshake with every option of the specification and the
// extended headers of its extension; simple, structured and extended replies;
// metadata contexts, base:allocation and those that an export has; TLS. Units on the
// wire are bytes.
//
//   - Contexts beside base:allocation are the export's: see [export.Context]. They are
//     listed with prefixes that end in a colon, and selected by their names.
//
//   - Requests should be aligned to the device's logical block, as clients are told.
//     Unaligned ones cost more: see unaligned.go. Only a block status must be
//     aligned.
//
//   - A client sees the size and features that the device had when the client
//     attached; only new connections see the new size of a resized device. See
//     Config.Grow.
//
//   - A flush covers writes of all connections, so multi-conn is always offered.
//
//   - Replies are sent in the order of completion.
//
//   - [checkdev], which wraps every export, emulates what a device lacks: FUA,
//     write-zeroes, long requests.
//
//   - An invalid request gets the specification's error and the connection
//     continues. The server cuts the connection only where it cannot tell where
//     the next request begins: a wrong magic number, the end of the stream, a
//     payload of more than 4 GiB, silence inside a request for longer than the
//     stall timeout.
//
// # Life of a request
//
//	socket ─recv─▶ slab ─parse, check─▶ request ─Submit─▶ device
//	                                                        │ End
//	socket ◀─sendmsg─ queue ◀──────── seal (headers) ◀──────┘
//
// Each connection has one goroutine, the reader, which on Linux owns a blocking
// socket, at which it waits with a thread while the client is busy: see sock. The payload of a write stays where it was received, and reads fill the
// buffer that is sent. If the device completes on the reader's stack, as memory
// and cached files do, a request costs no goroutine, no lock and no allocation.
// If the socket holds more requests it costs only a share of a system call:
// replies collect until the reader would block. Bios that end elsewhere are
// answered from there, without blocking the device's goroutine: see sender.go for
// the states.
//
// # Bounds
//
// Each connection is limited to 512 requests in flight, 64 MiB of memory (and as
// much again because slabs are rounded up), 32 MiB per payload, 64 KiB per option
// 16 metadata contexts, and 1024 options that are refused. A server is limited to
// Config.MaxConns connections, each busy one with a thread on Linux. A client that
// exceeds a limit waits or is refused.
// [blk.Device.Submit] may block for back-pressure, which stops only this
// connection's reader.
//
// # Locks
//
//	Server.mu            listeners and connections; nothing is called under it
//	the device's gate    held while an unaligned write is under way, see unaligned.go
//	conn's sender.mu     queue of replies, free requests
//	  sock.mu            the descriptor's end, what it awaits
//	poller.mu            the sockets at the poller
//
// Goroutines: one for each connection, one for each slow request in flight, one
// while a socket is full, and one for all sockets that are waited for. Close and
// Shutdown wait for all of them.
package nbd
