// Package volume is the volume manager: images, clones, pools, volumes and snapshots
// as objects, and operations on them that happen completely or not at all. It runs
// inside the daemon, above the device mapper and the targets, and works in any
// program that gives it devices whose tables are saved ([Devices]).
//
// # Objects
//
// An object is a mapped device and what was made for it: files, an id in a pool,
// devices below it. The kind of an object and what it is based on are read from its
// table and not stored elsewhere. What a table cannot say is saved with the device in
// its [Record]: which files were made for it, and the state of its base at that time
// (path, size, modification time, a hash of samples).
//
//	kind      table                            made with it
//	disk      any table that a user loaded     nothing
//	clone     snapshot over an image           a store
//	snapshot  snapshot over NAME-real          a store
//	merging   snapshot-merge                   as before the merge
//	pool      thin-pool                        files for data and metadata
//	volume    thin                             an id in the pool
//	hydrating clone, perhaps with linear       a file, and the metadata of the copy
//
// An object with snapshots has the table snapshot-origin over NAME-real. NAME-real
// has the object's previous table, which still determines its kind; so clones and
// snapshots can have snapshots, too. If a clone is longer than its base, or the base
// does not end at a sector boundary, there is a device NAME-base between the two,
// which appends zeroes.
//
// An image is whatever is used as a base by clones and volumes: a file, or a device
// that nobody can write to. It is not an object itself; its users are found in the
// tables. The manager never writes to an image that something else is based on.
//
// # Operations
//
// An operation is planned while its objects are locked. The plan is data, two lists
// of steps. Add only adds things and can be undone. Then switches over to them at one
// moment and removes what was there before. Between the two is the point of no
// return.
//
//  1. lock the objects, all at one moment
//  2. check the objects, refuse what cannot be done, list the steps
//  3. write JOURNAL/ID.begun: the operation with its steps
//  4. do the steps of Add in order
//  5. rename it to ID.0
//  6. do step N of Then, and rename ID.N to ID.N+1, for each of them
//  7. remove the marks, then JOURNAL/ID.N
//  8. unlock
//
// What the next start does after a crash, before anything is served:
//
//	before 3 is durable   nothing: the operation has not happened
//	before 5 is durable   undoes the steps, the last first; then 7
//	before 7 is durable   does the steps of Then from N on; then 7
//	after 7               nothing: the operation is complete
//
// If all steps of Then are done, 7 does not wait until the removal is durable. After a
// power cut the next start may find ID.N with the last N: it removes the marks, of which
// there are none, and ID.N. Whatever was done since, this changes nothing. An operation
// that was undone is gone durably: undone again, it could hit what others have made
// since, such as a volume under the id that it gave back. So is one that begins: its 3
// makes all removals before it durable.
//
// Each step, and its undo, works from any state that a crash within either may leave.
// If a step fails before 5, it and the steps before it are undone. The same happens
// if the first step of Then fails, unless its outcome is unknown. A later failure
// leaves the operation in the journal with its locks, and it is retried: after a
// while, before the next operation on its objects, and at the next start.
//
// A step undoes only what its own operation made, which it recognizes by marks. A
// file has a second name, PATH.ID, until the operation is complete; its real name is
// a hard link that never replaces an existing file. A device has the operation's id
// in its record. An id in a pool is one that was free while the pool was locked.
//
// Steps suspend devices internally: briefly, without saving it, and without lifting a
// user's suspend ([dm.Exchange]). Long work, copying and merging, is done by a step
// in pieces. Its objects stay locked, but whoever needs them gets an error instead of
// waiting.
//
// # Batches
//
// Many objects can be cloned, reset or removed by one operation. It has one entry in the
// journal, and each of its steps is about all objects, which lets the file system flush
// many files at once: stores are made and linked together, devices are saved together
// ([Devices]). So a crash within a step may leave any of its files and devices done and
// the others not, in no order:
//
//	within 4   the undo removes the files with a mark and the devices with the id
//	within 6   the step is done again: what is done already is left as it is
//
// What refuses one object refuses all: the first step of Then, which replaces all tables
// or removes all devices at one moment, does so for all of them or for none.
//
// # Streams
//
// Send and Receive move the content of an object, or its changes since a checkpoint,
// from one daemon to another in streams of package rbddiff. Each content has an id: of
// a snapshot the id of the operation that took it, of a received object the sender's id
// ([Record.Content]), of an image its fingerprint. A stream that starts from a content
// with another id than the one here is refused, whatever the names are.
//
// Receiving takes two operations. The first is short, locks the pool and makes
// NAME-incoming. The second fills it, which may take long, and renames it to NAME after
// its point of no return. If the second is undone, NAME-incoming stays if the user
// wants to continue the stream, and is removed otherwise, at the next start if the
// daemon was killed ([Manager.Recover]).
//
// # Merges and moves
//
// All data that moves while it is in use is moved by a snapshot-merge: a clone into
// its image, a snapshot into its origin. To flatten a clone, its base, which does not
// change, is copied into a new file, and the store is merged into that file. An
// object that is not a clone is first made a clone of its present content, frozen as
// NAME-real. To commit an object, its content is frozen and copied into a new base,
// which then replaces what is below the store.
//
// # Lazy clones
//
// A lazy clone is hydrating: the target clone copies its source into its file while it is
// used, and a linear line maps what is behind the end of the source. Once a second the
// manager looks for such objects of which all regions are durable in the file, and
// finishes them by an operation of two steps:
//
//	1 the table becomes a linear one of the file      a crash before: it hydrates, and is
//	                                                  finished again; the journal has it
//	2 the metadata of the copy are removed            a crash before: the same step again
//
// Until then the object needs its source. While the source fails, so do reads of what is
// not here; if it is absent at a start, the device waits for it, as for any other disk.
//
// # Lock order
//
//	locks of objects (claim; waited for, and held over I/O)
//	└─ what Devices' commands take
//	   └─ Manager.mu
package volume
