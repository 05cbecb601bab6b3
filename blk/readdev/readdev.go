// Package readdev makes a read-only device of something that can be read at any sector:
// an object at a web server, a snapshot in an archive, an image.
//
// Reads run on workers of the environment, in parts that the source reads side by side.
// Submit blocks while Depth bios are in flight; bios with NoWait end with WouldBlock. Lock
// order: Device.mu is a leaf.
package readdev

import (
	"context"
	"sync"
	"sync/atomic"

	"udm/blk"
	"udm/env"
)

// Depth is the maximum number of bios in flight, and workers that of parallel reads.
const (
	Depth   = 64
	workers = 8
)

// Source is what is read. Its methods are called side by side.
type Source interface {
	// Read fills p, a multiple of 512 bytes, from a sector on.
	Read(ctx context.Context, p []byte, sector uint64) error
	// Extents is a [blk.ExtentsFunc].
	Extents(sector, sectors uint64) ([]blk.Extent, error)
	// Report is that of the device.
	Report() blk.Report
	// Close releases the source. No read is under way.
	Close() error
	String() string
}

// Last is the report of a source of which only the last read tells something.
type Last struct{ why atomic.Pointer[string] } // nil: it went well

// Note takes down how a read went, and returns err.
func (l *Last) Note(err error) error {
	if err == nil {
		if l.why.Load() != nil {
			l.why.Store(nil)
		}
		return nil
	}
	text := err.Error()
	l.why.Store(&text)
	return err
}

// Report implements [Source].
func (l *Last) Report() blk.Report {
	if why := l.why.Load(); why != nil {
		return blk.Report{State: "unreadable", Why: *why}
	}
	return blk.Report{State: "readable"}
}

// Device is a source as a device.
type Device struct {
	Source  // Extents, Report, String
	limits  blk.Limits
	workers env.Workers
	wait    env.Wait  // woken when a bio ends
	jobs    sync.Pool // of *job
	ctx     context.Context
	stop    context.CancelFunc

	mu    sync.Mutex
	under int // guarded by mu; bios in flight
}

// job is a bio that a worker reads for.
type job struct {
	bio  *blk.Bio
	work env.Work
}

// New returns the device of a source of so many sectors, which it owns.
func New(e env.Env, s Source, sectors uint64) *Device {
	d := &Device{Source: s, limits: blk.DefaultLimits(sectors), workers: e.NewWorkers("readdev", workers, Depth, nil), wait: e.NewWait()}
	d.limits.ReadOnly, d.limits.NoWait = true, true
	d.ctx, d.stop = context.WithCancel(context.Background())
	d.jobs.New = func() any {
		j := &job{}
		j.work.Fn = func() { d.run(j) }
		return j
	}
	return d
}

// Limits implements [blk.Device].
func (d *Device) Limits() blk.Limits { return d.limits }

// Submit implements [blk.Device].
func (d *Device) Submit(b *blk.Bio) {
	switch {
	case b.Op == blk.Flush:
		b.Complete(blk.OK)
		return
	case b.Op != blk.Read:
		b.Complete(blk.ReadOnly)
		return
	case b.EndSector() < b.Sector || b.EndSector() > d.limits.Size:
		b.Complete(blk.Invalid)
		return
	}
	if !d.enter() {
		if b.Flags&blk.NoWait != 0 {
			b.Complete(blk.WouldBlock)
			return
		}
		d.wait.Until(d.enter)
	}
	j := d.jobs.Get().(*job)
	j.bio = b
	d.workers.Queue(&j.work)
}

func (d *Device) enter() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.under == Depth {
		return false
	}
	d.under++
	return true
}

func (d *Device) run(j *job) {
	b := j.bio
	err := d.read(b)
	j.bio = nil
	d.jobs.Put(j)
	d.mu.Lock()
	d.under--
	d.mu.Unlock()
	d.wait.Wake()
	if err != nil {
		b.Complete(blk.IOErr)
		return
	}
	b.Complete(blk.OK)
}

// read fills the buffers of a bio. One that ends within a sector is read by way of another.
func (d *Device) read(b *blk.Bio) error {
	sector := b.Sector
	var part []byte // of a sector, behind what was handed out
	for p := range b.Segments() {
		for len(p) > 0 {
			if len(part) > 0 {
				n := copy(p, part)
				p, part = p[n:], part[n:]
				continue
			}
			if whole := len(p) / blk.SectorSize; whole > 0 {
				if err := d.Read(d.ctx, p[:whole*blk.SectorSize], sector); err != nil {
					return err
				}
				p, sector = p[whole*blk.SectorSize:], sector+uint64(whole)
				continue
			}
			part = make([]byte, blk.SectorSize)
			if err := d.Read(d.ctx, part, sector); err != nil {
				return err
			}
			sector++
		}
	}
	return nil
}

// Close implements [blk.Device]. Requests that are under way are given up.
func (d *Device) Close() error {
	d.stop()
	d.workers.Close()
	return d.Source.Close()
}
