// Package state keeps mapped devices across restarts of the daemon: it saves and
// restores them. It does not depend on the commands that change them.
//
// # Saved state
//
// ROOT/devices has one JSON file for each device, MINOR.json: see [record]. A file
// describes the present state of its device. It is replaced atomically (a new file is
// written and flushed, then renamed, and the directory is flushed) before a command
// that changed the device is answered. The new file is written before the change is
// made, so a change for which there is no space is not made. After a crash at each
// step:
//
//	MINOR.json.new is written and flushed   the old state; .new is ignored
//	the change is made                      the old state
//	.new is renamed to MINOR.json           the old or the new state
//	ROOT/devices is flushed                 the new state
//	the command is answered
//
// To remove a device, MINOR.json is removed, the directory flushed, and the device
// removed. After a crash before the flush the device may or may not exist.
//
// Several devices are saved together, at most 64 at a time: each step is done for all of
// their files before the next one, and the directory is flushed once. After a crash each
// device may have its old or its new state whatever the others have. The journal of
// package volume makes a batch of devices atomic.
//
//	all .new are written, then flushed   the old states
//	the changes are made                 the old states
//	all .new are renamed                 each the old or the new state
//	ROOT/devices is flushed              the new states
//
// A name or uuid is never in two files: a file takes over a name only after the file
// of the previous owner has dropped it on disk, and that device is saved first if
// necessary. A starting daemon flushes the directories before it trusts what it
// reads: a killed daemon may have stopped right after a rename, and a later power cut
// must not undo what users have seen. test/sim loses power and kills the daemon at
// every step of several concurrent commands.
//
// ROOT/format.json has the format of all that is saved in ROOT. A program refuses to run
// on a newer format than its own: see [Format].
//
// ROOT/disks.json lists the disks with numbers chosen by the user. It is replaced
// atomically, too, and is read before all devices.
//
// # Restart
//
// Every device is created with its old minor number. Its tables are loaded once all
// mapped devices that they name have their tables:
//
//	waits ── its tables are loaded ──► restored ── it was suspended ──► suspended again
//	  ▲ │
//	  └─┘ a disk or a device below is missing: logged, kept, tried again
//
// Tables that cannot be loaded stay in the saved state, and everything else runs. A
// device that was suspended runs until everything on top of it is loaded.
//
// Tables are saved as they were loaded, except that mapped devices are named by
// numbers, which no rename changes, and disks by paths, which no restart changes.
//
// # Locks
//
// Lock order: State.disksLock (an env.Mutex, held while disks.json is replaced),
// State.saving (env.Mutexes, held while the files of devices are replaced, so that the
// last file written has the last state; several are locked in the order of the array),
// State.mu, the locks of package dm. None is held during a device-mapper command that
// can wait.
package state
