// Package server is the daemon: a set of mapped devices that is controlled over
// a Unix socket (package ctl), served to NBD clients, and kept across restarts.
//
// # Saved state
//
// ROOT/devices holds one JSON file for each device, MINOR.json: see [record]. A
// file says what its device is now, and is replaced whole (written beside,
// flushed, renamed, directory flushed) before a command that changed the device
// is answered. A crash at any moment leaves the state before or after it.
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
// see files.
//
// Lock order: files.op (an env.Mutex, held while devices are mounted or attached,
// which may wait), Server.saving (held while the file of a device is replaced, so
// that what is saved last is what is true last), Server.mu, the locks of package
// dm. The latter two of the server are not held while a command of the device mapper runs that
// can wait.
package server
