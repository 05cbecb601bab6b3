package ctl

import (
	"context"
	"io"

	"udm/volume"
)

// Volumes are the commands on images, clones, pools, volumes and snapshots;
// [volume.Manager] documents them. Each happens completely or not at all, even across
// a crash.
//
// Cancelling a ctx undoes an operation if that is still possible; otherwise the
// daemon completes it. The error is EINTR in either case; Operations lists what
// continues.
type Volumes interface {
	// Objects lists all objects in ascending order of names.
	Objects(context.Context) ([]volume.Object, error)
	// Object describes one object.
	Object(context.Context, Object) (volume.Object, error)
	// Labelled lists the objects that have a label. It waits until all are restored: who does
	// not find an object in the list knows that there is none.
	Labelled(context.Context, Labelled) ([]volume.Object, error)
	// Label changes labels of an object, which mean nothing to the daemon.
	Label(context.Context, volume.LabelSpec) error
	// Operations lists incomplete operations.
	Operations(context.Context) ([]volume.Operation, error)
	// CancelOperation undoes an operation, or says what it waits for.
	CancelOperation(context.Context, Operation) error

	// Clone makes writable copies of an image or of a device.
	Clone(context.Context, volume.CloneSpec) error
	// Snapshot keeps the present state of an object.
	Snapshot(context.Context, volume.SnapshotSpec) error
	// Merge writes a clone to its image, or restores an object from a snapshot of it.
	Merge(context.Context, Object) error
	// Rollback restores an object to the state of a snapshot of it.
	Rollback(context.Context, Object) error
	// Reset makes clones equal to their bases, all or none.
	Reset(context.Context, Objects) error
	// Resize makes an object larger or smaller.
	Resize(context.Context, volume.ResizeSpec) error
	// RenameObject changes the name of an object, and of the files made for it.
	RenameObject(context.Context, RenameObject) error
	// Flatten copies all data of an object into a file of its own.
	Flatten(context.Context, ObjectFile) error
	// Commit makes a new base from an object, and the object a clone of it.
	Commit(context.Context, ObjectFile) error
	// CopyOut copies the content of an object into a new file.
	CopyOut(context.Context, ObjectFile) error
	// CopyIn copies an image over the start of an object.
	CopyIn(context.Context, ObjectFile) error
	// RemoveObject removes objects and what was made for them, all or none.
	RemoveObject(context.Context, volume.RemoveSpec) error

	// Changes returns what an object has changed since a checkpoint, part by part.
	Changes(context.Context, volume.ChangesSpec) (volume.Changes, error)
	// Checkpoints lists the checkpoints for Changes.
	Checkpoints(context.Context, Object) ([]string, error)

	// Send writes what an object holds, or has changed since a checkpoint, as a stream.
	Send(context.Context, volume.SendSpec, io.Writer) error
	// Receive creates an object from such a stream.
	Receive(context.Context, volume.ReceiveSpec, io.Reader) (volume.Received, error)

	// CreatePool creates a pool with files of its own.
	CreatePool(context.Context, volume.PoolSpec) error
	// GrowPool makes a pool larger.
	GrowPool(context.Context, GrowPool) error
	// CreateVolume creates an empty volume in a pool.
	CreateVolume(context.Context, CreateVolume) error

	// Orphans lists what no object uses any more.
	Orphans(context.Context) ([]volume.Orphan, error)
	// RemoveOrphan removes an orphan.
	RemoveOrphan(context.Context, volume.Orphan) error
}

// Object names the object of a command. It and the types below are bodies of
// commands, like the specs of package volume. Sizes are in bytes.
type Object struct {
	Name string `json:"name"`
	// Settled waits until all objects are restored, before it is said that there is none.
	Settled bool `json:"settled,omitempty"`
}

// Labelled asks for the objects with a label, whatever its value.
type Labelled struct {
	Label string `json:"label"`
}

// Objects names the objects of a command.
type Objects struct {
	Name  string   `json:"name,omitempty"`
	Names []string `json:"names,omitempty"` // more of them
}

// Operation names an incomplete operation.
type Operation struct {
	ID string `json:"id"`
}

// ObjectFile is an object and the absolute path of a file.
type ObjectFile struct {
	Name string `json:"name"`
	File string `json:"file"`
}

// RenameObject changes the name of an object.
type RenameObject struct {
	Name    string `json:"name"`
	NewName string `json:"newName"`
}

// GrowPool gives the new sizes of a pool; 0 leaves data or metadata as it is.
type GrowPool struct {
	Name     string `json:"name"`
	Size     uint64 `json:"size,omitempty"`
	Metadata uint64 `json:"metadata,omitempty"`
}

// CreateVolume describes a new volume.
type CreateVolume = volume.VolumeSpec
