// Package rbddev is an image of a Ceph cluster as a device, by librbd.
//
// librbd is C, so only programs that are built with the build tag ceph, cgo and librbd's
// headers open images; in others [Open] says how to build one. Everything but the calls of
// librbd (librbd.go, librbd.c) is in all builds, and tested without a cluster.
//
// # A request
//
//	Submit -> slot -> librbd -> eventfd -> reap -> ended -> End
//
// A bio takes one of Depth slots and is started by one call of librbd, which does not block.
// While all slots are taken Submit blocks, and a bio with NoWait ends with WouldBlock. The
// queue reaps waits on an eventfd, fetches what has ended in batches and frees the slots;
// the queue ends runs the End of the bios, so that an End may submit. The memory of a bio is
// pinned while librbd has it; librbd copies the data of a write before Submit returns.
//
// librbd's cache is off: a write that has ended is on all its OSDs, and flushes have nothing
// to do. While OSDs do not answer, requests wait, as in a suspended device, and so does
// Close, because librbd cannot be made to give them up. Ceph's option rados_osd_op_timeout
// ends them with Timeout instead; such a write may take effect later.
//
// # The exclusive lock
//
// A device that is opened for writing acquires the image's exclusive lock, and keeps it
// until Close. If another client has it and does not give it away, Open fails with EBUSY. A
// client that has died holds its lock until Ceph finds out (30 s); Open waits for that.
//
// Breaking the lock of a live client blocklists that client. The OSDs then refuse what it
// sends, as soon as they know. The first refusal, or a lock that another client has, takes
// the device offline for good: the image may have been changed meanwhile, and what stands on
// the device must be opened again. A device without requests finds out within 10 s. A client
// that was stopped for longer than Ceph keeps such an entry (an hour by default) cannot know
// that it was on the list.
//
// A device that only reads takes no lock, and does not see that the size changes.
//
// # Identity
//
// An image is identified by the cluster, the pool's number and the image's id, which a
// rename does not change, a snapshot also by its own number: see [Find]. Open opens what was
// found, not what has the name by then.
//
// Lock order: Device.mu is a leaf. No call of librbd and no callback runs under it.
package rbddev
