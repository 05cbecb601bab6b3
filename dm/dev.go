package dm

import "udm/blk"

// Number names a block device as Linux does.
type Number = blk.Number

// Major is the major number of every mapped device.
const Major = 254

// Opener opens the devices that tables name. The core itself resolves mapped devices
// (/dev/mapper/NAME, /dev/dm-N, 254:N) and asks the Opener for all others.
type Opener interface {
	// Open opens the device with a name, for reading or also for writing, and
	// returns its number, which does not change while the device is open. Each
	// Open is undone by one Close of the returned device. That device must be
	// comparable. The errno of the error is the kernel's (ENODEV, EACCES, EBUSY,
	// …).
	Open(name string, write bool) (blk.Device, Number, error)
}

// Dev is a lower device that one table has open. The table closes it.
type Dev struct {
	blk.Device        // for Clone.SetDev and synchronous I/O
	Number     Number // as status and table lines print it
	Write      bool
	lower      *lower // what Device and Write were taken from
}

// Name returns the device's name in status and table lines: MAJOR:MINOR, whatever
// name it was opened by.
func (d *Dev) Name() string { return d.Number.String() }

// Mapped returns the mapped device that d is, or nil if it is of another kind.
func (d *Dev) Mapped() *Device { return d.lower.mapped }

// handle is one open of a mapped device. It submits to the device itself and
// counts as open until it is closed.
type handle struct {
	dev   *Device
	who   Holder
	write bool
}

func (h *handle) Submit(b *blk.Bio) {
	if m := h.dev.throttle.Load(); m != nil && h.who != Tables {
		m.submit(b)
		return
	}
	h.dev.Submit(b)
}

func (h *handle) Limits() blk.Limits { return h.dev.Limits() }
func (h *handle) String() string     { return h.dev.String() }
func (h *handle) Close() error       { h.dev.closed(h.who); return nil }
