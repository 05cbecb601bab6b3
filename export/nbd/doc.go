// Package nbd serves block devices to NBD clients: qemu, libnbd, the Linux
// kernel, nbdkit. It knows [blk.Device] and nothing of what is behind it.
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
// the metadata context base:allocation; TLS. Units on the wire are bytes;
// requests are aligned to the device's logical block.
//
//   - A client sees the size and abilities that the device had when it attached;
//     a resized device shows its new size to new connections. See Config.Grow.
//   - A flush covers writes of all connections, so multi-conn is always offered.
//   - Replies are sent in the order of completion.
//   - What a device lacks is made up for by [checkdev], which the server puts
//     around every export: FUA, write-zeroes, long requests.
//   - Wrong requests get the specification's error and the connection goes on.
//     It is cut only where nobody could tell where the next request begins: a
//     wrong magic number, the end of the stream, a payload of more than 4 GiB,
//     silence inside a request for longer than the stall timeout.
//
// # Life of a request
//
//	socket ─recv─▶ slab ─parse, check─▶ request ─Submit─▶ device
//	                                                        │ End
//	socket ◀─sendmsg─ queue ◀──────── seal (headers) ◀──────┘
//
// Each connection has one goroutine, the reader, which on Linux owns a blocking
// socket. The payload of a write stays where it was received, and data is read
// into the place that it is sent from. When the device completes on the
// reader's stack, which memory and cached files do, a request costs no
// goroutine, no lock, no allocation and, with others in the socket, only its
// share of a system call: replies collect until the reader would block. Bios
// that end elsewhere are answered from there, without blocking the device's
// goroutine: see sender.go, which draws the states.
//
// # Bounds
//
// For each connection: 512 requests under way, 64 MiB of memory (and as much
// again while slabs are rounded up), 32 MiB for a payload, 64 KiB for an option,
// 1024 options; for a server Config.MaxConns connections, each with a thread on
// Linux. A client that exceeds them waits or is refused. [blk.Device.Submit] may block for back-pressure:
// that stops this connection's reader only.
//
// # Locks
//
//	Server.mu            listeners and connections; nothing is called under it
//	conn's sender.mu     queue of replies, free requests
//	  sock.mu            the descriptor's end
//
// Goroutines: one for each connection, one for each slow request under way, one
// while a socket is full. Close and Shutdown wait for all of them.
package nbd
