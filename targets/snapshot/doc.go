// Package snapshot implements the targets "snapshot", "snapshot-origin" and
// "snapshot-merge" (drivers/md/dm-snap.c): copy-on-write of any disk. All three work
// on one list, the snapshots of an origin, so they share a package.
//
//	snapshot-origin ORIGIN
//	snapshot        ORIGIN COW P|PO|N CHUNK [N FEATURE…]
//	snapshot-merge  ORIGIN COW P|PO CHUNK [N FEATURE…]
//
// [Types] has the manuals. format.go describes the store on disk, persistent.go what
// a power cut leaves.
//
// # How a write is kept from a snapshot
//
// A chunk of a snapshot reads as the origin until it has an exception: a chunk of its
// own in the COW device. A write to the snapshot or to the origin creates the
// exception first:
//
//	write ─► pending exception ─► copy (kcopyd) ─► store ─► complete
//	         bios wait for it      or a write of            exception; reads
//	                               the whole chunk          drained; bios continue
//
// # Who sees what without a lock
//
// A bio for a chunk with an exception loads the snapshot's flags, its body and an
// entry of the table, and writes no shared memory. Everything else is decided under
// the lock of the chunk's slot of the pending table:
//
//   - A pending exception is created under the slot's lock, if there is neither a
//     pending nor a complete one. What was checked before taking the lock is checked
//     again.
//   - Exceptions take their places in the COW device from one counter of the store.
//     Whoever ends the copy passes the exception to the store and completes it. The
//     transient store records nothing. The persistent one records exceptions in the order
//     of their places, one goroutine at a time (record.go, recordturn.go,
//     recordstage.go). Others that arrive meanwhile wait briefly and then leave the rest
//     to that goroutine.
//   - The complete exception is added before the pending one is removed, which happens
//     only when no read of the chunk is in flight to the origin. So a chunk with a
//     complete exception and no pending one may be overwritten in the origin.
//   - A read of the origin is tracked first and then checks for an exception again:
//     either the read sees the exception, or whoever adds the exception sees the read.
//   - A bio of several chunks becomes one bio below as long as the chunks are alike
//     (run.go). A read of the origin is tracked for all of its chunks. A write that
//     replaces several copies has a pending exception for each chunk, created one at a
//     time, and ends with the last of them.
//   - Flags only change one way, except in a handover, which happens without I/O. If a
//     snapshot becomes invalid during a bio, the bio ends like one that came later.
//     Whatever must not happen before the store is marked invalid waits for that.
//
// # Locks
//
//	registry.mu            the lists of snapshots, handover
//	merge.mu            the run being merged
//	slot.mu             pending exceptions of some chunks
//	bucket.mu           a part of the complete table, but for its dense leaves
//	trackShard.mu, throttled.mu, shortage.mu, snapshot.mu
//
// merge.mu is taken before bucket.mu and trackShard.mu; throttled.mu is never held
// together with any other; the last line are leaves. No lock is held while a bio is
// submitted or ended or a callback runs.
//
// # When the disk below is full
//
// A write that finds no space in the COW device is repeated once a second, and
// everything that needs it waits. After a time it fails. The snapshot stays valid.
// See shortage.go.
//
// Only constructors, resume hooks, Presuspend and Close may wait.
package snapshot

import "udm/dm"

// Types returns the three target types. Pass them to dm.NewControl.
func Types() []*dm.Type {
	ps, status := params(), dm.StatusParser(ParseStatus)
	return []*dm.Type{
		{Name: "snapshot", Version: [3]uint32{1, 16, 0}, New: newSnapshot,
			Parse: dm.Parser(ParseLine), ParseStatus: status, Params: ps, Doc: snapshotDoc},
		{Name: "snapshot-origin", Version: [3]uint32{1, 9, 0}, New: newOrigin,
			Parse: dm.Parser(ParseOriginLine), Params: ps, Doc: originDoc},
		{Name: "snapshot-merge", Version: [3]uint32{1, 5, 0}, New: newMerging,
			Parse: dm.Parser(ParseMergeLine), ParseStatus: status, Params: ps, Doc: mergeDoc},
	}
}

const snapshotDoc = `snapshot: a writable copy of a disk that shares its unchanged chunks

Table:
  snapshot ORIGIN COW STORE CHUNK [N FEATURE...]
    ORIGIN   the disk; write to it through snapshot-origin only
    COW      where changed chunks go
    STORE    P: kept on COW; PO: also kept, and when COW is full writes fail
             but the snapshot stays valid; N: lost when the table is removed
    CHUNK    sectors, a power of two; 0: as in the store
    FEATURE  discard_zeroes_cow: zero chunks in COW that are discarded whole
             discard_passdown_origin: discard in ORIGIN too

Status (dmsetup status):
  ALLOCATED/TOTAL METADATA   sectors in use, size of COW, sectors used for metadata
  Invalid | Merge failed | Overflow

Messages:
  none

Example: a clone of an image, its changes in a second file
  0 2097152 snapshot /srv/image /srv/changes P 8
`

const originDoc = `snapshot-origin: a disk with snapshots

Table:
  snapshot-origin ORIGIN

Status (dmsetup status):
  nothing

Messages:
  none

Example: write to a disk that has snapshots
  0 2097152 snapshot-origin /srv/disk
`

const mergeDoc = `snapshot-merge: merges a snapshot back into its origin

Table:
  snapshot-merge ORIGIN COW STORE CHUNK [N FEATURE...]
    as for snapshot; it replaces snapshot-origin, and takes over the exceptions
    of a snapshot with the same COW, which must be suspended

Status (dmsetup status):
  as for snapshot; merged when ALLOCATED equals METADATA

Messages:
  none

Example: roll a disk back to its snapshot
  0 2097152 snapshot-merge /srv/disk /srv/changes P 8
`
