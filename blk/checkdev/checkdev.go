// Package checkdev is the only layer that validates bios and emulates what a
// device lacks. It sits at the edges of a stack: around leaf devices at the
// bottom, and under exports at the top. Nothing in between validates or emulates
// again; in builds with invariants [Between] detects violations there.
//
// # Validation
//
// A bio ends with Invalid if it lies beyond the end, is not aligned to the
// logical block, carries a flag that its op does not allow, or has too short
// buffers. It ends with ReadOnly if it changes a read-only device, and with
// NotSupported if the device lacks discards or does not honour NoWait. After
// Close every bio ends with Offline. The device below sees none of these. A bio
// of no sectors ends with OK without reaching the device, except one with
// Preflush or Barrier, which has an effect without data.
//
// # Emulation
//
//	flush, no volatile cache      OK at once, unless a barrier is in flight
//	FUA, no FUA below             write, then flush if there is a volatile cache
//	Preflush, with that option    flush if there is a volatile cache, then write
//	longer than MaxSectors        split
//	discard over MaxDiscard       split at borders of the granularity
//	write-zeroes over the maximum split
//	write-zeroes, none below      writes of zeroes; with FastZero NotSupported
//	Unstable, StableWrites below  writes of copies of the data
//
// A split bio has a bounded number of parts in flight; a failure stops it. A bio
// that needs no emulation passes unchanged, without allocation. With invariants
// on, the data of a write must be the same at the end as at the beginning, the
// data of failed reads is overwritten, and a second completion panics.
package checkdev

import (
	"sync"
	"sync/atomic"

	"udm/blk"
	"udm/internal/invariants"
)

// Options select emulation beyond what the device's limits imply.
type Options struct {
	// Preflush: the device does not support the Preflush flag.
	Preflush bool
}

// Device validates and emulates for a device below, which it owns.
type Device struct {
	lower  blk.Device
	opts   Options
	reqs   sync.Pool // of *req
	closed atomic.Bool

	barriers atomic.Int32 // in flight
}

// New returns the checked device.
func New(lower blk.Device, opts Options) *Device {
	return &Device{lower: lower, opts: opts, reqs: sync.Pool{New: newReq}}
}

// Submit validates b and passes it on, or emulates it.
func (d *Device) Submit(b *blk.Bio) {
	l := d.lower.Limits()
	if st := d.validate(b, &l); st != blk.OK {
		b.Complete(st)
		return
	}
	if invariants.Enabled {
		b = watch(b, true)
	}
	if b.Flags&blk.Barrier != 0 {
		b = d.countBarrier(b)
	}
	switch d.plan(b, &l) {
	case nothing:
		b.Complete(blk.OK)
	case refuse:
		b.Complete(blk.NotSupported)
	case pass:
		d.lower.Submit(b)
	case emulate:
		if b.Flags&blk.NoWait != 0 {
			b.Complete(blk.WouldBlock)
			return
		}
		d.emulate(b, &l)
	}
}

// countBarrier returns a substitute for b that is counted until b has ended.
func (d *Device) countBarrier(b *blk.Bio) *blk.Bio {
	d.barriers.Add(1)
	c := &blk.Bio{}
	c.CloneFrom(b)
	c.End = func(c *blk.Bio) {
		b.Complete(c.Status())
		d.barriers.Add(-1)
	}
	return c
}

// allowed are the flags of each op.
var allowed = [...]blk.Flags{
	blk.Read:        blk.Barrier | blk.NoWait | blk.Readahead,
	blk.Write:       blk.Barrier | blk.NoWait | blk.FUA | blk.Preflush | blk.Unstable,
	blk.Flush:       blk.Barrier | blk.NoWait,
	blk.Discard:     blk.Barrier | blk.NoWait,
	blk.WriteZeroes: blk.Barrier | blk.NoWait | blk.FUA | blk.Preflush | blk.NoUnmap | blk.FastZero,
}

func (d *Device) validate(b *blk.Bio, l *blk.Limits) blk.Status {
	switch {
	case d.closed.Load():
		return blk.Offline
	case int(b.Op) >= len(allowed):
		return blk.NotSupported
	case b.Flags&^allowed[b.Op] != 0:
		return blk.Invalid
	case b.Flags&blk.NoWait != 0 && !l.NoWait:
		return blk.NotSupported
	case b.Op == blk.Flush:
		return invalidUnless(b.Sectors == 0)
	case b.Op != blk.Read && l.ReadOnly:
		return blk.ReadOnly
	case b.Op == blk.Discard && l.MaxDiscard == 0:
		return blk.NotSupported
	}
	return invalidUnless(fits(b, l))
}

// fits reports whether b lies within the device, is aligned to its blocks, and
// has large enough buffers.
func fits(b *blk.Bio, l *blk.Limits) bool {
	mask := uint64(l.LogicalBlock/blk.SectorSize) - 1
	return b.EndSector() >= b.Sector && b.EndSector() <= l.Size &&
		(b.Sector|b.Sectors)&mask == 0 &&
		(!b.Op.HasData() || b.DataBytes()>>blk.SectorShift >= b.Sectors)
}

func invalidUnless(ok bool) blk.Status {
	if ok {
		return blk.OK
	}
	return blk.Invalid
}

// action is what to do with a valid bio.
type action uint8

const (
	pass    action = iota // unchanged
	nothing               // already done
	refuse                // NotSupported
	emulate               // see emulate.go
)

func (d *Device) plan(b *blk.Bio, l *blk.Limits) action {
	switch {
	case b.Op == blk.Flush && !l.VolatileCache && b.Flags&blk.Barrier == 0 && d.barriers.Load() == 0:
		return nothing
	case b.Op == blk.Flush:
		return pass
	case b.Sectors == 0 && b.Flags&blk.Barrier != 0:
		return pass
	case b.Sectors == 0 && b.Flags&blk.Preflush == 0:
		return nothing
	case b.Op == blk.WriteZeroes && l.MaxWriteZeroes == 0 && b.Flags&blk.FastZero != 0:
		return refuse
	case b.Flags&blk.FUA != 0 && !l.FUA,
		b.Flags&blk.Unstable != 0 && l.StableWrites,
		b.Flags&blk.Preflush != 0 && d.opts.Preflush,
		b.Sectors > chunk(b.Op, l) || b.Op == blk.WriteZeroes && l.MaxWriteZeroes == 0:
		return emulate
	}
	return pass
}

// Native are the limits of the device below, without emulation.
func (d *Device) Native() blk.Limits { return d.lower.Limits() }

// Limits are those of the device below plus the emulated features.
func (d *Device) Limits() blk.Limits {
	l := d.lower.Limits()
	l.FUA, l.MaxSectors, l.MaxWriteZeroes = true, 0, blk.NoLimit
	if l.MaxDiscard != 0 {
		l.MaxDiscard = blk.NoLimit
	}
	return l
}

// Close closes the device below, which waits for its bios. Closing twice does
// nothing.
func (d *Device) Close() error {
	if d.closed.Swap(true) {
		return nil
	}
	return d.lower.Close()
}

func (d *Device) String() string { return d.lower.String() }

// Extents is that of the device below.
func (d *Device) Extents(sector, sectors uint64) ([]blk.Extent, error) {
	return blk.ExtentsOf(d.lower, sector, sectors), nil
}
