// Package volume is the volume manager: images, clones, pools, volumes and
// snapshots as objects, and operations on them that happen whole or not at all.
// It runs inside the daemon, above the device mapper and the targets, and works
// in any program that gives it devices whose tables are saved ([Devices]).
//
// # Objects
//
// An object is a mapped device and what was made for it: files, an id in a pool,
// devices below it. What an object is, and what it stands on, is read from its
// table; nothing of that is kept a second time. What a table cannot say is kept
// with the device's saved table, in its [Record]: which files were made for it,
// and what its base looked like then (path, size, modification time, a hash of
// samples).
//
//	kind      table                            made for it
//	disk      anything that a user loaded      nothing
//	clone     snapshot over an image           a store
//	snapshot  snapshot over NAME-real          a store
//	merging   snapshot-merge                   what it had before
//	pool      thin-pool                        files for data and metadata
//	volume    thin                             an id in the pool
//
// An object with snapshots is a snapshot-origin over NAME-real, which has the
// table that the object had, and still is of the kind that this table makes it: so
// clones and snapshots have snapshots, too. A clone that is longer than its base,
// or whose base ends within a sector, stands on NAME-base, which puts zeroes
// behind it.
//
// An image is whatever clones and volumes have as their base: a file, or a
// device that nobody can write to. It has no object of its own; who stands on it
// is read from the tables. Nothing here writes to an image that something else
// stands on.
//
// # Operations
//
// An operation is planned under the locks of the objects that it touches. The
// plan is data, two lists of steps: Add only adds things, which can be undone;
// Then switches over to them at one moment and takes away what was before. Between
// the two is the point of no return.
//
//  1. lock the objects, all at one moment
//
//  2. look at what is there, refuse what cannot be done, list the steps
//
//  3. write JOURNAL/ID.begun: the operation with its steps
//
//  4. do the steps of Add, one after the other
//
//  5. rename it to ID.0
//
//  6. do step N of Then, and rename ID.N to ID.N+1, for each of them
//
//  7. remove the marks, then JOURNAL/ID.N
//
//  8. unlock
//
//     crash before 3 is durable   nothing has happened
//     before 5 is durable the steps are undone, the last first, at the next
//     start, before anything is served; then 7
//     before 7 is durable the steps of Then are done from N on; then 7
//     after 7             the operation is complete
//
// Each step works, as its undoing does, from any state that a crash inside either
// may leave. A step that fails before 5 is undone with those before it. So is a
// failure of the first step of Then: that refuses, and 5 is taken back, unless
// nobody knows what it has done. What fails later stays in the journal with its
// locks and is tried again: by itself, with the next operation on its objects, and
// at the next start.
//
// A step only undoes what its operation made. It knows that by marks: a file has a
// second name, PATH.ID, until the operation is over, and is given its own by
// linking it there in place of nothing; a device has the id in its record; an id
// in a pool is one that no volume had under the lock of the pool.
//
// Suspends that steps need are internal ones: short, never saved, and none of a
// user's is lifted by them ([dm.Exchange]). What takes long, copying and merging,
// is a step that is done bit by bit; its objects stay locked, but who wants them
// is told so instead of waiting.
//
// # Merges and moves
//
// Everything that moves data under users is a snapshot-merge: a clone into its
// image, a snapshot into the object that it was taken of. To flatten a clone, its
// base, which does not change, is copied into a new file, and the store is merged
// into that. What is no clone becomes one first, of what it was, frozen as
// NAME-real. To commit is to freeze, to copy what is frozen into a new base, and
// to put that below the store.
//
// # Lock order
//
//	locks of objects (claim; waited for, and held over I/O)
//	└─ what Devices' commands take
//	   └─ Manager.mu
package volume
