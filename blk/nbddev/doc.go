// Package nbddev is a disk at an NBD server that outlives its connections: when
// one breaks, bios wait, the device connects again, and nothing is lost that was
// acknowledged.
//
// # States
//
//	            broken                    connected, same export, replayed
//	connected ----------> connecting <---------------------------------> connected
//	                        |   ^ later (100 ms, doubled up to 10 s, by chance a
//	                        +---+ quarter more or less)
//
// While the device is not connected, bios wait in it, up to Depth of them; then
// Submit blocks, as a suspended device does. A bio with NoWait ends with WouldBlock.
// With Options.Timeout a bio that has no answer for that long ends with Timeout:
// the write may still have happened or happen, as any failed write. A server that
// does not answer is left and connected again then. Without a Timeout the device
// waits for ever, unless the host's TCP finds out that the peer is gone (30 s).
//
// One connection that breaks takes the others with it: whether the server is still
// the same process cannot be told. A server that says ESHUTDOWN has broken the
// connection.
//
// # What was acknowledged is there
//
// A server that restarts may lose what it had in its cache; a mere loss of the
// connection loses nothing, and the client cannot tell which of them it was. So the
// device keeps a copy of every write, write-zeroes and discard that was
// acknowledged, in that order, until a flush that began afterwards has succeeded.
// After connecting it first sends all of those again, waits for their answers, and
// only then what had no answer, and new bios. At that moment the disk holds what
// its users were told it holds: reads do not go back in time and the flush that
// follows covers the repeated writes, because it runs at the server that has them.
// Repeating is harmless where nothing was lost: the data are the same, and later
// writes to the same sectors are repeated after earlier ones. Writes with FUA are
// kept like the others, for they may lie over kept ones. A crash of this process
// loses the copies, as a power failure loses the cache of a disk.
//
// Copies are bounded by Options.Buffer: when half of that is in use the device
// flushes by itself, and a write that finds no room waits for that flush. Where the
// server refuses to repeat a write, or such a flush fails, the next flush of the
// user fails once with an I/O error, and [blk.Report] says so.
//
// A server without flush promises that what it acknowledged is durable; nothing is
// kept then.
//
// One thing the protocol cannot exclude: requests that a server received on the old
// connection and carries out only after those of the new one. Servers finish or
// drop what they received when they see that the connection has ended; a network
// that delivers to them later what was sent on the old connection breaks that.
//
// # A changed export is refused
//
// After connecting again the name, the read-only flag, the abilities and the block
// sizes must be what they were and the size at least that. A larger size is taken.
// Otherwise the state is "refused" with the reason, bios go on waiting, and the
// device tries again: the right server may come back.
//
// # Goroutines and locks
//
// Works of [env.Queue] do everything: links connects, ends runs the End of bios (so
// that an End may submit), clock looks at times; each connection has two more.
// Close waits for all. It lets bios under way end for a while (5 s) when connected,
// then ends them with Offline.
//
// Lock order: Device.mu, then session.mu and the client's; no I/O and no callback
// runs under them.
package nbddev
