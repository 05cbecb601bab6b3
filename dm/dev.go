package dm

import "udm/blk"

// Number names a block device as Linux does.
type Number = blk.Number

// Major is the major number of every mapped device.
const Major = 254

// Opener opens what stands below the tables. The core itself resolves mapped
// devices (/dev/mapper/NAME, /dev/dm-N, 254:N) and asks the Opener for the rest.
type Opener interface {
	// Open opens the device called name, for writing or only for reading, and
	// tells its number, which stays the same for the same device as long as any
	// open of it lasts. Each Open is undone by one Close of the device that it
	// returned, which is comparable. The error's errno is the kernel's (ENODEV,
	// EACCES, EBUSY, …).
	Open(name string, write bool) (blk.Device, Number, error)
}

// Dev is a lower device as opened by one table.
type Dev struct {
	blk.Device        // for Clone.SetDev and synchronous I/O
	Number     Number // what status and table lines print
	Write      bool
	lower      *lower // what Device and Write were taken from
}

// Name is how status and table lines name the device: always major:minor,
// whatever the table said.
func (d *Dev) Name() string { return d.Number.String() }

// Mapped returns the mapped device behind d, nil when it is another kind.
func (d *Dev) Mapped() *Device { return d.lower.mapped }

// handle is one open of a mapped device. It submits to the device itself and
// counts as open until it is closed.
type handle struct {
	dev   *Device
	who   Holder
	write bool
}

func (h *handle) Submit(b *blk.Bio)  { h.dev.Submit(b) }
func (h *handle) Limits() blk.Limits { return h.dev.Limits() }
func (h *handle) String() string     { return h.dev.String() }
func (h *handle) Close() error       { h.dev.closed(h.who); return nil }
