// Package activation creates and removes the devices of a volume group on a daemon.
// It is a client of the daemon and works with any [ctl.Service].
//
// # Names
//
// Devices have the names and uuids that LVM gives them ([lvm.DeviceName],
// [lvm.DeviceUUID]), so programs find a volume by them. A device belongs to a group
// by its name and the start of its uuid, so devices can be removed without reading
// the disks.
//
// # All or nothing
//
// Devices are created one by one, each after those that its table names. If one
// fails, those created by this call are removed again. If the program or the daemon
// is killed, the first few devices exist completely: activating again creates the
// rest, deactivating removes them. An existing device is kept if it has the same
// table; otherwise activation fails.
//
// # Clones
//
// Over clones, the group's disks are only read. Each has a read-only device
// GROUP-PV-disk, and a clone of that, GROUP-PV-clone, whose store holds the changes.
// Both are removed, with the changes, together with the last device of the group.
//
// # Changes of active groups
//
// [Live] changes a group while its volumes are in use. The daemon makes a device
// GROUP-PV-change over each disk, through which the program changes the group's text;
// these devices also keep two programs from changing the same group. After the commit
// the devices follow: those whose tables change are suspended, users before what they
// use; then each layer gets its new table and goes on, and what users see goes on when
// all of the group is there, so that a new snapshot begins at one moment. If the program
// is killed in between, the text counts: to deactivate and activate the group again
// makes its devices those of the text.
//
// # Thin pools
//
// A pool matches its group's text if it has the transaction id of the text. If it has
// the id before that and the text has messages for the pool, the messages were not
// sent when the text was written, and are sent now. If nothing may be written, the
// volumes that they would create are left out. With any other id, or if the pool has
// failed or needs a check, activation fails, as in LVM.
package activation
