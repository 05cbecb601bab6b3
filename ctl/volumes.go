package ctl

import (
	"context"

	"udm/volume"
)

// Volumes are the commands about images, clones, pools, volumes and snapshots:
// those of [volume.Manager], which tells what they do. Each happens whole or not at
// all, whatever ends meanwhile.
//
// Cancelling a ctx undoes what can be undone; what cannot goes on in the daemon.
// EINTR either way: Operations tells.
type Volumes interface {
	// Objects lists all objects, ascending by name.
	Objects(context.Context) ([]volume.Object, error)
	// Operations lists what is under way.
	Operations(context.Context) ([]volume.Operation, error)
	// CancelOperation undoes an operation, or says what it waits for.
	CancelOperation(context.Context, Operation) error

	// Clone makes writable copies of an image or of a device.
	Clone(context.Context, volume.CloneSpec) error
	// Snapshot keeps an object as it is now.
	Snapshot(context.Context, volume.SnapshotSpec) error
	// Merge writes a clone to its image, or a snapshot to what it was taken of.
	Merge(context.Context, Object) error
	// Rollback brings an object back to what a snapshot of it holds.
	Rollback(context.Context, Object) error
	// Reset makes a clone what its base is.
	Reset(context.Context, Object) error
	// Resize makes an object larger or smaller.
	Resize(context.Context, volume.ResizeSpec) error
	// RenameObject gives an object another name, and the files made for it theirs.
	RenameObject(context.Context, RenameObject) error
	// Flatten gives an object a file of its own with all that it holds.
	Flatten(context.Context, ObjectFile) error
	// Commit makes a new base of what an object holds, and the object its clone.
	Commit(context.Context, ObjectFile) error
	// CopyOut copies what an object holds into a new file.
	CopyOut(context.Context, ObjectFile) error
	// CopyIn copies an image over the beginning of an object.
	CopyIn(context.Context, ObjectFile) error
	// RemoveObject removes an object and what was made for it.
	RemoveObject(context.Context, volume.RemoveSpec) error

	// Changes tells what an object has changed since a checkpoint, a part at a time.
	Changes(context.Context, volume.ChangesSpec) (volume.Changes, error)
	// Checkpoints lists what Changes can be asked since.
	Checkpoints(context.Context, Object) ([]string, error)

	// CreatePool makes a pool with files of its own.
	CreatePool(context.Context, volume.PoolSpec) error
	// GrowPool gives a pool more space.
	GrowPool(context.Context, GrowPool) error
	// CreateVolume makes an empty volume in a pool.
	CreateVolume(context.Context, CreateVolume) error

	// Orphans lists what no object uses any more.
	Orphans(context.Context) ([]volume.Orphan, error)
	// RemoveOrphan removes one of them.
	RemoveOrphan(context.Context, volume.Orphan) error
}

// Object names the object of a command. It and the others below are the bodies of
// commands, as the specs of package volume are. Sizes are in bytes.
type Object struct {
	Name string `json:"name"`
}

// Operation names an operation that is under way.
type Operation struct {
	ID string `json:"id"`
}

// ObjectFile is an object and a file, by its absolute path.
type ObjectFile struct {
	Name string `json:"name"`
	File string `json:"file"`
}

// RenameObject gives an object another name.
type RenameObject struct {
	Name    string `json:"name"`
	NewName string `json:"newName"`
}

// GrowPool says how large a pool is to be; 0 leaves its data or metadata.
type GrowPool struct {
	Name     string `json:"name"`
	Size     uint64 `json:"size,omitempty"`
	Metadata uint64 `json:"metadata,omitempty"`
}

// CreateVolume says what volume to make.
type CreateVolume struct {
	Pool string `json:"pool"`
	Name string `json:"name"`
	Size uint64 `json:"size"`
}
