// Package snapshot is the targets "snapshot", "snapshot-origin" and
// "snapshot-merge" (drivers/md/dm-snap.c): copy-on-write of any disk. The three
// are one mechanism around one list, the snapshots of an origin, and share one
// folder.
//
//	snapshot-origin ORIGIN
//	snapshot        ORIGIN COW P|PO|N CHUNK [N FEATURE…]
//	snapshot-merge  ORIGIN COW P|PO CHUNK [N FEATURE…]
//
// The manuals are in [Types]. The store on disk is in format.go, what a power cut
// leaves in persistent.go.
//
// # How a write is kept from a snapshot
//
// A chunk of a snapshot reads as the origin until it has an exception: a place
// of its own in the COW device. A write to either of the two makes one first:
//
//	write ─► pending exception ─► copy (kcopyd) ─► store ─► complete
//	         bios wait in it       or a write of            exception; reads
//	                               the whole chunk          drained; bios go on
//
// # Who sees what without a lock
//
// A bio for a chunk with an exception loads the snapshot's flags, its body and
// an entry of the table, and writes nothing that is shared. All else is decided
// under the lock of one slot of the pending table, the one for the chunk:
//
//   - A pending exception is made under the slot's lock by who sees neither a
//     pending nor a complete exception there. What was looked at before the lock
//     was taken is looked at again.
//   - The place of an exception comes from one counter of the store. Whoever ends
//     the copy brings the exception to the store and completes it. The transient
//     store has nothing to record; the persistent one records exceptions in the
//     order of their places, by one goroutine at a time (record.go, recordturn.go,
//     recordstage.go). Whoever comes meanwhile waits for a moment, and then leaves
//     the rest to it.
//   - The complete exception is added while the pending one still exists, and
//     that goes only when no read of the chunk is under way in the origin. So a
//     chunk with an exception and no pending one may be overwritten in the
//     origin.
//   - A read of the origin is tracked first and looks again afterwards: either
//     it sees the exception, or who adds the exception sees the read.
//   - A bio of several chunks is one bio below as far as they are alike (run.go).
//     A read of the origin is tracked for all of its chunks; a write that stands
//     in for several copies has a pending exception for each, made one at a time,
//     and ends with the last of them.
//   - The flags only go one way, but for a handover, which happens without I/O.
//     A snapshot that becomes invalid under a bio ends it like one that came
//     later; what must not happen before the store knows waits for that.
//
// # Locks
//
//	world.mu            the lists of snapshots, handover
//	merge.mu            the run being merged
//	slot.mu             pending exceptions of some chunks
//	bucket.mu           a part of the complete table, but for its dense leaves
//	trackShard.mu, throttled.mu, shortage.mu, snapshot.mu
//
// merge.mu is outside bucket.mu and trackShard.mu, throttled.mu is taken with
// none of the others; those in the last line are leaves. No lock is held while
// a bio is submitted or ended or a callback runs.
//
// # When the disk below is full
//
// A write that finds no space in the COW device is repeated once a second, and who
// needs it waits; after a time it fails. The snapshot stays valid: shortage.go.
//
// Nothing here waits but constructors, resume hooks, Presuspend and Close.
package snapshot

import "udm/dm"

// Types are the three target types, to be given to dm.NewControl.
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

const snapshotDoc = `snapshot: a writable copy of a disk that shares what neither has changed

Table:
  snapshot ORIGIN COW STORE CHUNK [N FEATURE...]
    ORIGIN   the disk; write to it through snapshot-origin only
    COW      where changed chunks go
    STORE    P: kept on COW; PO: the same, and a full store stops writes
             instead of dropping the snapshot; N: forgotten with the table
    CHUNK    sectors, a power of two; 0: as the store says
    FEATURE  discard_zeroes_cow: zero chunks that are discarded whole
             discard_passdown_origin: discard in ORIGIN too

Status (dmsetup status):
  ALLOCATED/TOTAL METADATA   sectors of COW in use, of these for the store
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

Example: the way to write to a disk that has snapshots
  0 2097152 snapshot-origin /srv/disk
`

const mergeDoc = `snapshot-merge: a snapshot on its way back into its origin

Table:
  snapshot-merge ORIGIN COW STORE CHUNK [N FEATURE...]
    as for snapshot; it takes the place of snapshot-origin, and takes the
    exceptions from a snapshot with the same COW, which must be suspended

Status (dmsetup status):
  as for snapshot; merged when ALLOCATED equals METADATA

Messages:
  none

Example: roll a disk back to its snapshot
  0 2097152 snapshot-merge /srv/disk /srv/changes P 8
`
