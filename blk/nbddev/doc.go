// Package nbddev is a disk at an NBD server that survives broken connections: bios
// wait while the device reconnects, and no acknowledged write is lost.
//
// # States
//
//	            broken                    connected, same export, replayed
//	connected ----------> connecting <---------------------------------> connected
//	                        |   ^ retry (100 ms, doubled up to 10 s, plus or minus a
//	                        +---+ random quarter)
//
// While the device is not connected, up to Depth bios wait in it; then Submit blocks,
// as for a suspended device. A bio with NoWait ends with WouldBlock. With
// Options.Timeout, a bio without an answer for that long ends with Timeout; like any
// failed write, it may or may not take effect. The device then disconnects from the
// server and reconnects. Without a Timeout it waits for ever, unless the host's TCP
// detects that the peer is gone (30 s).
//
// If one connection breaks, all are abandoned, because the device cannot tell whether
// the server is still the same process. ESHUTDOWN from the server counts as a broken
// connection.
//
// # Acknowledged writes survive
//
// A restarted server may have lost its cache; a lost connection alone loses nothing,
// and a client cannot tell the two apart. So the device keeps a copy of every
// acknowledged write, write-zeroes and discard, in order of acknowledgement, until a
// later flush has succeeded. After reconnecting it first replays all of these and
// waits for the answers; then it sends the unanswered bios, and then new ones. At
// that moment the disk has the content that its users expect: reads do not go back in
// time, and the next flush covers the replayed writes, because the same server has
// them. If nothing was lost the replay is harmless: the data is the same, and writes
// to the same sectors are replayed in order. Writes with FUA are kept too, because
// they may overlap kept ones. If this process crashes the copies are lost, as a power
// failure loses a disk's cache.
//
// Options.Buffer bounds the copies: when half of it is in use the device flushes, and
// a write without room waits for that flush. If the server refuses a replayed write,
// or such a flush fails, the user's next flush fails once with an I/O error, and
// [blk.Report] says so.
//
// A server without flush guarantees that acknowledged writes are durable; nothing is
// kept then.
//
// The protocol cannot exclude one problem: the server may receive requests on the old
// connection and execute them after those on the new one. Servers finish or drop such
// requests when they see the end of the connection; a network that delivers data of
// the old connection later defeats this.
//
// # One of several paths
//
// With Options.Path the device is one of several that lead to the same disk, over which
// a multipath device chooses. It must then not send anything again: meanwhile its user
// may have written something newer over another path, and a flush may have gone there. So
// nothing is kept, and without a connection bios end with Offline at once. It connects
// again as before. Acknowledged writes are then as safe as the server's cache: it must
// outlive the server, or be that of all paths.
//
// # A changed export is refused
//
// After reconnecting, the name, the read-only flag, the features and the block sizes
// must be unchanged, and the size must not be smaller. A larger size is adopted.
// Otherwise the state is "refused" with a reason, bios continue to wait, and the
// device keeps trying: the right server may come back.
//
// # Goroutines and locks
//
// Everything runs as works of [env.Queue]s: links connects, ends runs the End of bios
// (so that an End may submit), clock checks timeouts; each connection has two more.
// Close waits for all of them. It gives bios in flight some time (5 s) to end if
// connected, then ends them with Offline.
//
// Lock order: Device.mu, then session.mu and the client's; no I/O and no callback
// runs under them.
package nbddev
