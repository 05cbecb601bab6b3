package ctl

type (
	// Mount is the body of mount and unmount. Dir is an absolute path.
	Mount struct {
		Dir string `json:"dir"`
		// Numbered shows the devices as dm-MINOR in ROOT/by-number, until the daemon ends;
		// Dir must be empty.
		Numbered bool `json:"numbered,omitempty"`
		// Lazy makes unmount disconnect programs that have files open.
		Lazy bool `json:"lazy,omitempty"`
	}
	// Attach is the body of attach. Driver is the kernel driver for the block device:
	// loop, nbd, or empty for loop if available, else nbd.
	Attach struct {
		Ref
		Driver string `json:"driver,omitempty"`
	}
	// Attachment is a mapped device that is attached as a block device of the kernel.
	Attachment struct {
		Number
		Name string `json:"name"` // of the mapped device
		Path string `json:"path"` // of the block device
	}
)

// Drivers of the kernel's block devices.
const (
	DriverLoop = "loop"
	DriverNBD  = "nbd"
	DriverUblk = "ublk"
)
