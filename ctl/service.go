package ctl

import (
	"context"
	"iter"
)

// Service is what a daemon does: the commands of the protocol. The service in the
// daemon's process (package ctl/server/service) and [Client] are two of them, so
// that a program may embed the one or speak to the other.
//
// Cancelling a ctx gives up what waits: EINTR.
type Service interface {
	// Version tells what runs there.
	Version(context.Context) (Version, error)
	// Targets lists the target types, ascending by name, with their manuals.
	Targets(context.Context) ([]Target, error)
	// Params lists the parameters of the target types, ascending by name.
	Params(context.Context) ([]Param, error)
	// SetParam changes a parameter until the daemon ends.
	SetParam(context.Context, SetParam) (Param, error)

	// List lists all devices, ascending by name; the query's name is a prefix.
	List(context.Context, Query) ([]Device, error)
	// Device asks about one device.
	Device(context.Context, Query) (Device, error)
	// Create makes a device.
	Create(context.Context, Create) (Device, error)
	// Load fills a device's inactive slot.
	Load(context.Context, Load) (Device, error)
	// Clear empties a device's inactive slot.
	Clear(context.Context, Ref) (Device, error)
	// Suspend stops a device's I/O.
	Suspend(context.Context, Suspend) (Device, error)
	// Resume makes the inactive table live and lets I/O flow.
	Resume(context.Context, Suspend) (Device, error)
	// Remove removes a device; one that is open is only marked if that is asked for.
	Remove(context.Context, Remove) error
	// RemoveAll removes every device that is not open.
	RemoveAll(context.Context, Remove) error
	// Rename changes a device's name or sets its uuid.
	Rename(context.Context, Rename) (Device, error)
	// Message sends words to a target and returns its answer.
	Message(context.Context, Message) (string, error)
	// Wait blocks until a device's event number is not the request's.
	Wait(context.Context, Wait) (Device, error)

	// Mount shows every active device as a file in a directory. Told twice it
	// does nothing.
	Mount(context.Context, Mount) error
	// Unmount ends that. EBUSY: files are open.
	Unmount(context.Context, Mount) error
	// Mounts lists the directories where devices are shown.
	Mounts(context.Context) ([]Mount, error)
	// Attach makes a block device of the kernel from a device. Told twice it
	// answers the same one, whatever its driver.
	Attach(context.Context, Attach) (Attachment, error)
	// Detach takes the block device of a device away. EBUSY: it is in use.
	Detach(context.Context, Ref) error
	// Attachments lists what is attached, ascending by number.
	Attachments(context.Context) ([]Attachment, error)

	// Export serves a device to virtual machines on a Unix socket. Told twice it does
	// nothing.
	Export(context.Context, Export) (Exported, error)
	// Unexport ends that. EBUSY: a virtual machine uses it.
	Unexport(context.Context, Unexport) error
	// Exported lists what is served to virtual machines, ascending by path.
	Exported(context.Context) ([]Exported, error)

	// RegisterDisk gives a path a number for as long as it is registered.
	RegisterDisk(context.Context, Disk) error
	// UnregisterDisk ends that.
	UnregisterDisk(context.Context, Number) error
	// Disks lists the registered disks, ascending by number.
	Disks(context.Context) ([]Disk, error)

	// Events subscribes to what happens to devices until ctx ends: from when it
	// returns on, nothing is missed but what an event of kind lost tells of. The
	// events are to be ranged over once; an error is the last of them.
	Events(context.Context) (iter.Seq2[Event, error], error)
	// FrontEnds tells what the daemon serves, and to whom.
	FrontEnds(context.Context) ([]FrontEnd, error)

	Volumes
}
