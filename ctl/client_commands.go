package ctl

import (
	"context"
	"iter"
)

var _ Service = (*Client)(nil)

// Version implements [Service].
func (c *Client) Version(ctx context.Context) (Version, error) {
	return version.call(ctx, c, nothing{})
}

// Targets implements [Service].
func (c *Client) Targets(ctx context.Context) ([]Target, error) {
	return targets.call(ctx, c, nothing{})
}

// Params implements [Service].
func (c *Client) Params(ctx context.Context) ([]Param, error) {
	return params.call(ctx, c, nothing{})
}

// SetParam implements [Service].
func (c *Client) SetParam(ctx context.Context, r SetParam) (Param, error) {
	return setParam.call(ctx, c, r)
}

// Keys implements [Service].
func (c *Client) Keys(ctx context.Context) ([]Key, error) {
	return keys.call(ctx, c, nothing{})
}

// SetKey implements [Service].
func (c *Client) SetKey(ctx context.Context, k SetKey) error {
	_, err := setKey.call(ctx, c, k)
	return err
}

// RemoveKey implements [Service].
func (c *Client) RemoveKey(ctx context.Context, n KeyName) error {
	_, err := removeKey.call(ctx, c, n)
	return err
}

// List implements [Service].
func (c *Client) List(ctx context.Context, r Query) ([]Device, error) {
	return list.call(ctx, c, r)
}

// Device implements [Service].
func (c *Client) Device(ctx context.Context, r Query) (Device, error) {
	return device.call(ctx, c, r)
}

// Create implements [Service].
func (c *Client) Create(ctx context.Context, r Create) (Device, error) {
	return create.call(ctx, c, r)
}

// Load implements [Service].
func (c *Client) Load(ctx context.Context, r Load) (Device, error) {
	return load.call(ctx, c, r)
}

// Clear implements [Service].
func (c *Client) Clear(ctx context.Context, r Ref) (Device, error) {
	return clearTable.call(ctx, c, r)
}

// Suspend implements [Service].
func (c *Client) Suspend(ctx context.Context, r Suspend) (Device, error) {
	return suspend.call(ctx, c, r)
}

// Resume implements [Service].
func (c *Client) Resume(ctx context.Context, r Suspend) (Device, error) {
	return resume.call(ctx, c, r)
}

// Remove implements [Service].
func (c *Client) Remove(ctx context.Context, r Remove) error {
	_, err := remove.call(ctx, c, r)
	return err
}

// RemoveAll implements [Service].
func (c *Client) RemoveAll(ctx context.Context, r Remove) error {
	_, err := removeAll.call(ctx, c, r)
	return err
}

// Rename implements [Service].
func (c *Client) Rename(ctx context.Context, r Rename) (Device, error) {
	return rename.call(ctx, c, r)
}

// Message implements [Service].
func (c *Client) Message(ctx context.Context, r Message) (string, error) {
	reply, err := message.call(ctx, c, r)
	return reply.Text, err
}

// Wait implements [Service].
func (c *Client) Wait(ctx context.Context, r Wait) (Device, error) {
	return wait.call(ctx, c, r)
}

// Mount implements [Service].
func (c *Client) Mount(ctx context.Context, r Mount) error {
	_, err := mount.call(ctx, c, r)
	return err
}

// Unmount implements [Service].
func (c *Client) Unmount(ctx context.Context, r Mount) error {
	_, err := unmount.call(ctx, c, r)
	return err
}

// Mounts implements [Service].
func (c *Client) Mounts(ctx context.Context) ([]Mount, error) {
	return mounts.call(ctx, c, nothing{})
}

// Attach implements [Service].
func (c *Client) Attach(ctx context.Context, r Attach) (Attachment, error) {
	return attach.call(ctx, c, r)
}

// Detach implements [Service].
func (c *Client) Detach(ctx context.Context, r Ref) error {
	_, err := detach.call(ctx, c, r)
	return err
}

// Attachments implements [Service].
func (c *Client) Attachments(ctx context.Context) ([]Attachment, error) {
	return attachments.call(ctx, c, nothing{})
}

// Export implements [Service].
func (c *Client) Export(ctx context.Context, r Export) (Exported, error) {
	return exportTo.call(ctx, c, r)
}

// Unexport implements [Service].
func (c *Client) Unexport(ctx context.Context, r Unexport) error {
	_, err := unexport.call(ctx, c, r)
	return err
}

// Exported implements [Service].
func (c *Client) Exported(ctx context.Context) ([]Exported, error) {
	return exported.call(ctx, c, nothing{})
}

// Limit implements [Service].
func (c *Client) Limit(ctx context.Context, l Limit) error {
	_, err := limit.call(ctx, c, l)
	return err
}

// Limits implements [Service].
func (c *Client) Limits(ctx context.Context) ([]Limit, error) {
	return limits.call(ctx, c, nothing{})
}

// Stats implements [Service].
func (c *Client) Stats(ctx context.Context) ([]Stats, error) {
	return stats.call(ctx, c, nothing{})
}

// FrontEnds implements [Service].
func (c *Client) FrontEnds(ctx context.Context) ([]FrontEnd, error) {
	return frontEnds.call(ctx, c, nothing{})
}

// RegisterDisk implements [Service].
func (c *Client) RegisterDisk(ctx context.Context, d Disk) error {
	_, err := register.call(ctx, c, d)
	return err
}

// UnregisterDisk implements [Service].
func (c *Client) UnregisterDisk(ctx context.Context, n Number) error {
	_, err := unregister.call(ctx, c, n)
	return err
}

// Disks implements [Service].
func (c *Client) Disks(ctx context.Context) ([]Disk, error) {
	return disks.call(ctx, c, nothing{})
}

// Events implements [Service].
func (c *Client) Events(ctx context.Context) (iter.Seq2[Event, error], error) {
	return events.call(ctx, c, nothing{})
}

// Trace implements [Service].
func (c *Client) Trace(ctx context.Context, r Trace) (iter.Seq2[TraceEvent, error], error) {
	return trace.call(ctx, c, r)
}
