// Package activation has a daemon make the devices of a volume group, and remove them.
// It is a client of the daemon: any [ctl.Service] will do.
//
// # Names
//
// Devices have the names and uuids that LVM gives them ([lvm.DeviceName],
// [lvm.DeviceUUID]); whoever looks for a volume by them finds it. A device is known as a
// group's by its name and the beginning of its uuid, so they are removed without the
// disks being read.
//
// # Whole or not at all
//
// Devices are created one by one, each when those are there that its table names. When
// one fails, those that this call has made are removed again. A program or daemon that
// is killed leaves the first of them, each of them whole: to activate again makes the
// rest, and to deactivate removes what there is. A device that is there already is left
// as it is if it has the same table, else the group is not activated.
//
// # Clones
//
// Over clones, the group's disks are only read: each has a device GROUP-PV-disk, which
// is read-only, and a clone of that, GROUP-PV-clone, whose store has what is written.
// They go, with what was written, when the last device of the group does.
//
// # Thin pools
//
// A pool is one with its group's text if it has the transaction id of the text. If it
// has the one before it and the text has messages for the pool, they were not sent when
// the text was written: they are sent now. Where nothing may be written, the volumes that
// they would create are left out. Any other id, and a pool that failed or needs a check,
// makes activation fail: LVM refuses it as well.
package activation
