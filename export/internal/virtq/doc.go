// Package virtq implements virtio's rings in memory, split and packed: no sockets, no
// devices, no goroutines. [Queue] is the device's side, [Driver] the driver's side, used
// by tests and benchmarks. Guest memory is a [Table] of regions.
//
// # Split ring (virtio 1.2, 2.7; little-endian, size N)
//
//	descriptors  16 bytes each   address 8, length 4, flags 2, next 2
//	avail        6 + 2N          flags 2, index 2, N heads of 2, used_event 2
//	used         6 + 8N          flags 2, index 2, N of {head 4, length 4}, avail_event 2
//
// Indices count modulo 65536. used_event and avail_event are used only with
// EVENT_IDX, the flags only without it.
//
// # Packed ring (2.8)
//
//	descriptors  16 bytes each   address 8, length 4, buffer ID 2, flags 2
//	event areas  4               position 2, flags 2; one of the driver, one of the device
//
// Both sides go round one ring, with a counter that wraps from 1 to 0 and back. A chain is
// in consecutive descriptors, its ID in the last one; a used element takes the place of as
// many. Flags of both sides say whether a descriptor is available or used in this round.
//
// The requests in flight can be recorded in memory that outlives the device: see
// [Config].Inflight.
//
// # Memory order
//
// Both indices are loaded and stored with Go's atomics, which are sequentially
// consistent. So what was written before an index is visible after loading it, and
// storing an index precedes loading the other side's notification request. In a packed
// ring the word with ID and flags of a descriptor is such an index, and each event area
// is a word. Go has no 16-bit atomics, so an index is accessed with the aligned word
// around it: used.index together with the flags, which belong to the device as well.
// avail_event is different: it is the last two bytes of its ring, and the bytes after it
// may belong to somebody else. It is stored plainly, followed by a full barrier, which is
// an atomic addition to a word of the queue. Without the atomic instructions of ARMv8.1
// that is not a barrier, so [EventIdx] is false there.
//
// # Hostile drivers
//
// Nothing that a driver writes can make a Queue panic, loop, allocate or access
// memory outside the regions. An invalid ring is broken for good, and every call
// returns an error: an index too far ahead, a head or link beyond its table, a loop,
// a chain of more than [MaxChain] descriptors, a head that is in flight already, an
// indirect table that is empty, of an odd length, nested, not negotiated or not in
// one region; in a packed ring a buffer ID that is not smaller than N, and more
// descriptors in flight than N. A chain with a fault of its own has a [Chain.Err] and
// goes back to the driver: an empty buffer, a buffer outside all regions, a readable
// buffer after a writable one. Each descriptor is copied once, and only the copy is used.
// Memory that can shrink causes faults: a Queue over such memory must be called on a
// goroutine with debug.SetPanicOnFault.
package virtq
