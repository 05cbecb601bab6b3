package ctl

import (
	"context"
	"io"

	"udm/volume"
)

// Objects implements [Volumes].
func (c *Client) Objects(ctx context.Context) ([]volume.Object, error) {
	return objects.call(ctx, c, nothing{})
}

// Object implements [Volumes].
func (c *Client) Object(ctx context.Context, r Object) (volume.Object, error) {
	return object.call(ctx, c, r)
}

// Labelled implements [Volumes].
func (c *Client) Labelled(ctx context.Context, r Labelled) ([]volume.Object, error) {
	return labelled.call(ctx, c, r)
}

// Label implements [Volumes].
func (c *Client) Label(ctx context.Context, r volume.LabelSpec) error {
	_, err := label.call(ctx, c, r)
	return err
}

// Operations implements [Volumes].
func (c *Client) Operations(ctx context.Context) ([]volume.Operation, error) {
	return operations.call(ctx, c, nothing{})
}

// CancelOperation implements [Volumes].
func (c *Client) CancelOperation(ctx context.Context, r Operation) error {
	_, err := cancel.call(ctx, c, r)
	return err
}

// Clone implements [Volumes].
func (c *Client) Clone(ctx context.Context, r volume.CloneSpec) error {
	_, err := clone.call(ctx, c, r)
	return err
}

// Snapshot implements [Volumes].
func (c *Client) Snapshot(ctx context.Context, r volume.SnapshotSpec) error {
	_, err := takeSnapshot.call(ctx, c, r)
	return err
}

// Merge implements [Volumes].
func (c *Client) Merge(ctx context.Context, r Object) error {
	_, err := merge.call(ctx, c, r)
	return err
}

// Rollback implements [Volumes].
func (c *Client) Rollback(ctx context.Context, r Object) error {
	_, err := rollback.call(ctx, c, r)
	return err
}

// Reset implements [Volumes].
func (c *Client) Reset(ctx context.Context, r Objects) error {
	_, err := reset.call(ctx, c, r)
	return err
}

// Resize implements [Volumes].
func (c *Client) Resize(ctx context.Context, r volume.ResizeSpec) error {
	_, err := resize.call(ctx, c, r)
	return err
}

// RenameObject implements [Volumes].
func (c *Client) RenameObject(ctx context.Context, r RenameObject) error {
	_, err := renameObject.call(ctx, c, r)
	return err
}

// Flatten implements [Volumes].
func (c *Client) Flatten(ctx context.Context, r ObjectFile) error {
	_, err := flatten.call(ctx, c, r)
	return err
}

// Commit implements [Volumes].
func (c *Client) Commit(ctx context.Context, r ObjectFile) error {
	_, err := commit.call(ctx, c, r)
	return err
}

// CopyOut implements [Volumes].
func (c *Client) CopyOut(ctx context.Context, r ObjectFile) error {
	_, err := copyOut.call(ctx, c, r)
	return err
}

// CopyIn implements [Volumes].
func (c *Client) CopyIn(ctx context.Context, r ObjectFile) error {
	_, err := copyIn.call(ctx, c, r)
	return err
}

// RemoveObject implements [Volumes].
func (c *Client) RemoveObject(ctx context.Context, r volume.RemoveSpec) error {
	_, err := removeObject.call(ctx, c, r)
	return err
}

// Changes implements [Volumes].
func (c *Client) Changes(ctx context.Context, r volume.ChangesSpec) (volume.Changes, error) {
	return changes.call(ctx, c, r)
}

// Checkpoints implements [Volumes].
func (c *Client) Checkpoints(ctx context.Context, r Object) ([]string, error) {
	return checkpoints.call(ctx, c, r)
}

// Send implements [Volumes].
func (c *Client) Send(ctx context.Context, r volume.SendSpec, w io.Writer) error {
	return send.call(ctx, c, r, w)
}

// Receive implements [Volumes].
func (c *Client) Receive(ctx context.Context, r volume.ReceiveSpec, in io.Reader) (volume.Received, error) {
	return receive.call(ctx, c, r, in)
}

// CreatePool implements [Volumes].
func (c *Client) CreatePool(ctx context.Context, r volume.PoolSpec) error {
	_, err := createPool.call(ctx, c, r)
	return err
}

// GrowPool implements [Volumes].
func (c *Client) GrowPool(ctx context.Context, r GrowPool) error {
	_, err := growPool.call(ctx, c, r)
	return err
}

// CreateVolume implements [Volumes].
func (c *Client) CreateVolume(ctx context.Context, r CreateVolume) error {
	_, err := createVolume.call(ctx, c, r)
	return err
}

// Orphans implements [Volumes].
func (c *Client) Orphans(ctx context.Context) ([]volume.Orphan, error) {
	return orphans.call(ctx, c, nothing{})
}

// RemoveOrphan implements [Volumes].
func (c *Client) RemoveOrphan(ctx context.Context, r volume.Orphan) error {
	_, err := removeOrphan.call(ctx, c, r)
	return err
}
