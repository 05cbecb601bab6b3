package ctl

import "context"

type (
	// Mount is the body of mount and unmount. Dir is an absolute path.
	Mount struct {
		Dir string `json:"dir"`
		// Lazy lets unmount cut off who still has files open.
		Lazy bool `json:"lazy,omitempty"`
	}
	// Attach is the body of attach. Driver is the kernel's driver of the block
	// device: loop, nbd, or empty for loop where there is one, else nbd.
	Attach struct {
		Ref
		Driver string `json:"driver,omitempty"`
	}
	// Attachment is a mapped device as a block device of the kernel.
	Attachment struct {
		Number
		Name string `json:"name"` // of the mapped device
		Path string `json:"path"` // of the block device
	}
)

// Mount shows every active device as a file in a directory. Told twice it does
// nothing.
func (c *Client) Mount(ctx context.Context, r Mount) error { return c.call(ctx, "mount", r, nil) }

// Unmount ends that. EBUSY: files are open.
func (c *Client) Unmount(ctx context.Context, r Mount) error { return c.call(ctx, "unmount", r, nil) }

// Mounts lists the directories where devices are shown.
func (c *Client) Mounts(ctx context.Context) (ms []Mount, err error) {
	return ms, c.call(ctx, "mounts", struct{}{}, &ms)
}

// Drivers of the kernel's block devices.
const (
	DriverLoop = "loop"
	DriverNBD  = "nbd"
)

// Attach makes a block device of the kernel from a device. Told twice it answers
// the same one, whatever its driver.
func (c *Client) Attach(ctx context.Context, r Attach) (a Attachment, err error) {
	return a, c.call(ctx, "attach", r, &a)
}

// Detach takes the block device of a device away. EBUSY: it is in use.
func (c *Client) Detach(ctx context.Context, r Ref) error { return c.call(ctx, "detach", r, nil) }

// Attachments lists what is attached, ascending by number.
func (c *Client) Attachments(ctx context.Context) (as []Attachment, err error) {
	return as, c.call(ctx, "attachments", struct{}{}, &as)
}
