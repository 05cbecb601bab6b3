// Package state keeps mapped devices across restarts of the daemon: it saves what
// they are, and makes them again. It knows nothing of the commands that change
// them.
//
// # Saved state
//
// ROOT/devices holds one JSON file for each device, MINOR.json: see [record]. A
// file says what its device is now, and is replaced whole (written beside,
// flushed, renamed, directory flushed) before a command that changed the device
// is answered. The new file is written before the change is made, so that a change
// that finds no space is not made. What a crash leaves of a change, by its steps:
//
//	MINOR.json.new is written and flushed   the state before; .new is no state
//	the change is made                      the state before
//	.new is renamed to MINOR.json           the state before or after
//	ROOT/devices is flushed                 the state after
//	the command is answered
//
// A removal is MINOR.json removed, the directory flushed, and the device removed:
// before the flush the device is there again or not.
//
// A name or uuid is in one file only, whatever happens: a file takes one that
// another has only once that has given it up on the disk, which is saved first if
// need be. A daemon that starts flushes the directories before it believes what
// it reads: one that was killed may have got as far as the renaming, and what
// users have seen must not go away in a later power cut. test/sim loses power
// and kills the daemon at every step of several commands at once.
//
// ROOT/disks.json holds the disks that have a number of their user's choice; it is
// replaced whole, too, and comes before all devices.
//
// # Restart
//
// Every device is made with its old minor number, and its tables are loaded as
// soon as all mapped devices that they name have theirs:
//
//	waits ── its tables are loaded ──► restored ── it was suspended ──► suspended again
//	  ▲ │
//	  └─┘ a disk or a device below is missing: told, kept, tried again
//
// Tables that cannot be loaded are kept in the saved state, and the rest runs. A
// device that was suspended runs until everything that stands on it is loaded.
//
// Tables are saved as they were loaded, except that mapped devices are named by
// their numbers, which no rename changes, and disks by their paths, which no
// restart changes.
//
// # Locks
//
// Lock order: State.disksLock (an env.Mutex, held while disks.json is replaced),
// State.saving (env.Mutexes, held while the file of a device is
// replaced, so that what is saved last is what is true last), State.mu, the locks
// of package dm. None is held while a command of the device mapper runs that can
// wait.
package state
