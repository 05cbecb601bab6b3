// Package virtq is virtio's split ring over bytes: no sockets, no devices, no
// goroutines. [Queue] is the device's side, [Driver] the other one, which tests
// and benchmarks use. Guest memory is a [Table] of regions.
//
// # Layout (virtio 1.2, 2.7; little-endian, size N)
//
//	descriptors  16 bytes each   address 8, length 4, flags 2, next 2
//	avail        6 + 2N          flags 2, index 2, N heads of 2, used_event 2
//	used         6 + 8N          flags 2, index 2, N of {head 4, length 4}, avail_event 2
//
// Indices run free modulo 65536. used_event and avail_event mean something with
// EVENT_IDX only, the flags only without it.
//
// What a queue has in flight can be noted in memory that outlives it: see [Inflight].
//
// # Memory order
//
// Both indices are loaded and stored with the atomics of Go, which are
// sequentially consistent: what was written before the store of an index is seen
// after the load of it, and the store of an index comes before the load of the
// other side's wish to be told. Go has no atomics of 16 bits, so an index is
// moved with the aligned word around it: used.index together with the flags, which
// are the device's as well. avail_event is different: it is the last two bytes of
// its ring, and what follows belongs to somebody else. It is stored plainly, with a
// full barrier behind it: an atomic addition to a word of ours. Without the
// atomic instructions of ARMv8.1 that is none, so [EventIdx] is false there.
//
// # Hostile drivers
//
// Nothing that a driver writes makes a Queue panic, loop, allocate or look beyond
// the regions. A ring that cannot be made sense of is broken for good, and every
// call says so: an index too far ahead, a head or a link beyond its table, a
// loop, a chain of more than [MaxChain] descriptors, a head that is in flight
// already, an indirect table that is empty, ragged, nested, unannounced or not
// in one region. A chain that is at fault alone has an [Chain.Err] and
// goes back to the driver: an empty buffer, one that no region holds, a
// readable one behind a writable one. Each descriptor is copied once, and the copy
// is used. Memory that can shrink faults when it does: who calls a Queue over
// such memory does it on a goroutine with debug.SetPanicOnFault.
package virtq
