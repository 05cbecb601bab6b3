// Package server is the daemon: a set of mapped devices that is controlled over
// a Unix socket (package ctl), served to NBD clients, and kept across restarts.
//
// # Saved state
//
// ROOT/devices holds one JSON file for each device, MINOR.json: see [record]. A
// file says what its device is now, and is replaced whole (written beside,
// flushed, renamed, directory flushed) before a command that changed the device
// is answered. What a crash leaves of a change, by its steps:
//
//	MINOR.json.new is written and flushed   the state before; .new is no state
//	it is renamed to MINOR.json             the state before or after
//	ROOT/devices is flushed                 the state after
//	the command is answered
//
// A removal is MINOR.json removed and the directory flushed: before the flush the
// device is there again or not.
//
// A name or uuid is in one file only, whatever happens: a file takes one that
// another has only once that has given it up on the disk, which is saved first if
// need be. A daemon that starts flushes the directories before it believes what
// it reads: one that was killed may have got as far as the renaming, and what
// users have seen must not go away in a later power cut. test/sim loses power
// and kills the daemon at every step of several commands at once.
//
// On start every device is made with its old minor number, and its tables are
// loaded as soon as all mapped devices that they name have theirs. A table that
// cannot be loaded, because its disk is missing for example, waits: it is
// reported, kept in the saved state, tried again every few seconds, and the rest
// runs. No export is served before the first round is over, so that nobody
// writes to an origin whose snapshot is about to come.
//
// Tables are saved as they were loaded, except that mapped devices are named by
// their numbers, which no rename changes, and disks by their paths, which no
// restart changes.
//
// What is mounted as files and attached as block devices is in ROOT/files.json:
// see files. What is attached by nbd has a process that outlives the daemon to
// disconnect: see link.
//
// Lock order: files.op (an env.Mutex, held while devices are mounted or attached,
// which may wait), Server.naming, Server.saving (held while the file of a device is replaced, so
// that what is saved last is what is true last), Server.mu, the locks of package
// dm. The latter two of the server are not held while a command of the device mapper runs that
// can wait.
package server
