// Package archive keeps snapshots of disks in a [Store]: a folder, or an object store. The
// format is described in docs/formats/archive.md.
//
// # Objects
//
//	config             what makes a store an archive: version, salt, a check of the key
//	packs/ID/N         chunks that the backup ID has stored, and pages of its index
//	snapshots/ID       the index of a snapshot, or the mark that there is none any more, or ever
//	writers/ID         the lease of a backup that runs
//	lock               of a prune
//
// An id is random, so that no two backups use the same keys. All objects but leases and the
// lock are made once, by PutNew, and do not change; a removal replaces an index by the mark.
//
// An index is complete, and needs no other one. It refers to pages, which say for a gibibyte
// of the device in which chunks that is. Pages are stored, named, shared with the bases,
// marked and swept as chunks are; in what follows they are chunks. So a backup that changes
// little stores little, however large the device is.
//
// # A backup, and what is left if it dies after a step
//
//  1. The lease is put. Left: a lease, which a prune ends when it is an hour old.
//  2. The indexes of its bases are read, after the lease: whoever removes a base later sees
//     the lease. Left: the same.
//  3. Packs are put. Left: packs that no snapshot refers to; the prune that ends the lease
//     removes them.
//  4. The index is put new: this is the commit. Before it the snapshot is not there, after it
//     it is whole. If the answer is lost, the backup tries to put the mark of its end in its
//     place: of the two, one succeeds. Left: the lease, which a prune removes.
//  5. The lease is deleted.
//
// A backup that gives up puts the mark first, then deletes its packs, then its lease.
//
// # A prune beside backups
//
// Clocks decide only when a lease is old, never what is right: to end a backup, the prune
// puts the mark in the place of its index. If that succeeds, the backup can never commit, and
// fails if it tries; otherwise it has committed.
//
//  1. The lock is put new. It keeps two prunes from doing the same work, and nothing depends
//     on it: a holder that has died is overtaken after an hour, and one that was only slow
//     does no harm.
//  2. Packs are listed. What is not in the list is not removed.
//  3. Leases are listed, and old ones ended. The packs of the others are left alone, and
//     their bases must be there; otherwise the prune gives up.
//  4. The indexes are read.
//  5. Steps 3 and 4 are repeated for what is new: a backup that began after the first list
//     has a lease now, or has ended, and then its index is there.
//  6. A pack of the list of step 2 that is of no backup with a lease, and in no index, is
//     removed. Its backup has no lease, as the lease was put before the pack: it has committed,
//     and its index would name the pack, or it never will. Nor can another one refer to it:
//     backups refer to chunks of their bases only, which are in an index.
//  7. Leases of what was ended are deleted, then the lock.
//
// A prune that dies has removed some of these packs, and the next one removes the others.
//
// # What a store must do
//
// PutNew must be atomic, and a list must show every object that was put before it began.
// A request that failed may have been carried out, or may be later, when another one has
// done its work: [Retry] repeats it, and finds out for PutNew whose object is there. That is
// why marks stay: a late request finds its key taken. What else comes late does no harm: a
// pack or a lease that nobody needs, which a prune removes, or the lock.
//
// # Locks
//
// Snapshot.mu is the only one, and a leaf.
package archive
