package ctl

import (
	"context"
	"iter"
)

// Service is the interface of a daemon: the commands of the protocol. Both the
// service in the daemon's process (package ctl/server/service) and [Client] implement
// it, so a program may embed the one or use the other.
//
// Cancelling a ctx interrupts a command that waits: EINTR.
type Service interface {
	// Version returns the versions of program and interface.
	Version(context.Context) (Version, error)
	// Targets lists the target types with their manuals, in ascending order of names.
	Targets(context.Context) ([]Target, error)
	// Params lists the parameters of the target types, in ascending order of names.
	Params(context.Context) ([]Param, error)
	// SetParam changes a parameter until the daemon ends.
	SetParam(context.Context, SetParam) (Param, error)
	// Keys lists the keys in the key store, in ascending order of types and descriptions.
	Keys(context.Context) ([]Key, error)
	// SetKey stores a key, in place of an older one, and loads tables that wait for it.
	SetKey(context.Context, SetKey) error
	// RemoveKey removes a key. Devices that use it go on. ENOKEY: there is none.
	RemoveKey(context.Context, KeyName) error

	// List lists all devices in ascending order of names; the query's name is a
	// prefix.
	List(context.Context, Query) ([]Device, error)
	// Device describes one device.
	Device(context.Context, Query) (Device, error)
	// Create creates a device.
	Create(context.Context, Create) (Device, error)
	// Load loads a table into a device's inactive slot.
	Load(context.Context, Load) (Device, error)
	// Clear empties a device's inactive slot.
	Clear(context.Context, Ref) (Device, error)
	// Suspend suspends a device.
	Suspend(context.Context, Suspend) (Device, error)
	// Resume makes the inactive table live and lets I/O continue.
	Resume(context.Context, Suspend) (Device, error)
	// Remove removes a device. An open device is only marked for removal, if
	// requested.
	Remove(context.Context, Remove) error
	// RemoveAll removes every device that is not open.
	RemoveAll(context.Context, Remove) error
	// Rename changes a device's name or sets its uuid.
	Rename(context.Context, Rename) (Device, error)
	// Message sends a message to a target and returns its answer.
	Message(context.Context, Message) (string, error)
	// Wait blocks until a device's event number differs from the request's.
	Wait(context.Context, Wait) (Device, error)

	// Mount shows every active device as a file in a directory. Repeating a call has
	// no effect.
	Mount(context.Context, Mount) error
	// Unmount undoes Mount. EBUSY: files are open.
	Unmount(context.Context, Mount) error
	// Mounts lists the directories where devices are shown.
	Mounts(context.Context) ([]Mount, error)
	// Attach makes a device a block device of the kernel. If it is attached already,
	// it returns the existing block device, whatever its driver.
	Attach(context.Context, Attach) (Attachment, error)
	// Detach removes the block device of a device. EBUSY: it is in use.
	Detach(context.Context, Ref) error
	// Attachments lists attached devices in ascending order of numbers.
	Attachments(context.Context) ([]Attachment, error)

	// Export serves a device to virtual machines on a Unix socket. Repeating a call
	// has no effect.
	Export(context.Context, Export) (Exported, error)
	// Unexport undoes Export. EBUSY: a virtual machine uses it.
	Unexport(context.Context, Unexport) error
	// Exported lists exports to virtual machines in ascending order of paths.
	Exported(context.Context) ([]Exported, error)

	// RegisterDisk gives a path a device number while it is registered.
	RegisterDisk(context.Context, Disk) error
	// UnregisterDisk undoes RegisterDisk.
	UnregisterDisk(context.Context, Number) error
	// Disks lists the registered disks in ascending order of numbers.
	Disks(context.Context) ([]Disk, error)

	// Events subscribes to events of devices until ctx ends. No event is missed from
	// the moment it returns, except those reported by an event of kind lost. The
	// sequence can be used only once; an error is its last element.
	Events(context.Context) (iter.Seq2[Event, error], error)
	// Limit bounds what the clients of a device, or of the devices of a group, may
	// do. ENOENT: there is no such group.
	Limit(context.Context, Limit) error
	// Limits lists the limits, those of groups first.
	Limits(context.Context) ([]Limit, error)
	// Stats returns I/O statistics of all devices in ascending order of names. Counting
	// begins with the first call.
	Stats(context.Context) ([]Stats, error)
	// Trace follows the bios of a device, and of the mapped devices that it stands on at
	// that time, until ctx ends. Events that are not read in time are lost, and counted.
	// The sequence can be used only once.
	Trace(context.Context, Trace) (iter.Seq2[TraceEvent, error], error)
	// FrontEnds reports what the daemon serves, and to whom.
	FrontEnds(context.Context) ([]FrontEnd, error)

	Volumes
}
