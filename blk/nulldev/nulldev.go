// Package nulldev is a disk without content: every bio succeeds at once, on the
// submitter's stack, without allocation. Like the kernel's null_blk, it is the
// baseline for measuring the cost of the layers above.
package nulldev

import (
	"fmt"

	"udm/blk"
)

// Device is a null disk. Its fields are set once by New.
type Device struct {
	limits    blk.Limits
	zeroReads bool
}

// Option changes how a device behaves.
type Option func(*Device)

// ZeroReads makes reads fill the buffers with zeroes. Without it reads leave the
// buffers unchanged and cost no memory traffic.
func ZeroReads(d *Device) { d.zeroReads = true }

// Tune lets f change the limits that the device reports.
func Tune(f func(*blk.Limits)) Option { return func(d *Device) { f(&d.limits) } }

// New returns a null disk of a number of sectors.
func New(sectors uint64, opts ...Option) *Device {
	d := &Device{limits: blk.DefaultLimits(sectors)}
	d.limits.MaxDiscard, d.limits.DiscardGranularity = blk.NoLimit, blk.SectorSize
	d.limits.MaxWriteZeroes = blk.NoLimit
	d.limits.FUA, d.limits.NoWait = true, true
	for _, o := range opts {
		o(d)
	}
	return d
}

// Submit completes b inline.
func (d *Device) Submit(b *blk.Bio) {
	if d.zeroReads && b.Op == blk.Read {
		b.Zero()
	}
	b.Complete(blk.OK)
}

func (d *Device) Limits() blk.Limits { return d.limits }
func (d *Device) Close() error       { return nil }
func (d *Device) String() string     { return fmt.Sprintf("null:%d", d.limits.Size*blk.SectorSize) }
