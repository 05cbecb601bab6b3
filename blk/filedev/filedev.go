// Package filedev is a disk in a file or on a block device of the machine.
//
// # Durability
//
//	write          in the page cache when it ends: the cache is volatile
//	flush          fdatasync
//	FUA            RWF_DSYNC, or the write and then fdatasync
//	discard        punches a hole (BLKDISCARD on a block device)
//	write-zeroes   punches a hole; with NoUnmap, or where that is not possible,
//	               zeroes the range in place; where the file system can do
//	               neither, writes zeroes, or NotSupported with FastZero
//
// The kernel tells of an error of write-back once and forgets it, and the pages
// with it. So once a flush or a FUA write has failed every later flush and FUA
// write fails: what was acknowledged before may be lost, and opening the file
// again, with a check of what is in it, is the only way on.
//
// A file system without room, or a quota that is used up, is another matter: the
// write ends with NoSpace, nothing that was written before is touched, and the
// same write succeeds once there is room.
//
// # Work
//
// A read of what the page cache holds is done on the submitter's stack, and so is
// everything on a file system in memory (tmpfs), where nothing waits for a disk.
// All else goes to a bounded pool of goroutines, which end when there is nothing to do.
// When Options.Queue bios wait, Submit blocks, first come first served; a bio
// with NoWait ends with WouldBlock instead.
// End runs on a goroutine of the pool, or of the submitter; it may submit to the
// same device again, but must not otherwise block for long.
//
// # Locking
//
// A file that is open for writing is locked (flock) against a second opening for
// writing, by this process or another. A block device is also opened with
// O_EXCL, so that a mounted one is refused.
//
// Lock order: pool.mu is a leaf; no I/O and no End runs under it.
package filedev

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"

	"udm/blk"
)

// Options choose how a file is opened.
type Options struct {
	ReadOnly bool
	// Direct bypasses the page cache (O_DIRECT). Buffers that are not aligned
	// as the file system asks are copied. Linux only.
	Direct  bool
	Workers int // most goroutines doing I/O; 0: 8
	Queue   int // bios that may wait for one before Submit blocks; 0: 128
}

// ErrInUse is why a file that somebody has open for writing is refused.
var ErrInUse = errors.New("already open for writing")

// Device is an open file.
type Device struct {
	path   string
	f      file
	limits blk.Limits // set by Open; Size is in a field of its own
	size   atomic.Uint64
	align  uint64 // of buffers in memory, bytes; 0: any will do
	inline bool   // I/O never waits for a disk, so a pool would only be a detour
	pool   *pool
	vecs   sync.Pool // of *vec
	bounce sync.Pool // of *[]byte: aligned buffers of bounceSize

	noTry atomic.Bool // the file cannot read without blocking
	lost  atomic.Bool // an error of write-back was reported
}

// Open opens a regular file or a block device. The error names the file; it is
// ErrInUse when the lock is taken.
func Open(path string, o Options) (*Device, error) {
	f, g, err := openFile(path, o)
	if err != nil {
		return nil, err
	}
	d := newDevice(path, f, g, o)
	if _, err := d.Refresh(); err != nil {
		f.close()
		return nil, err
	}
	return d, nil
}

// geometry is what opening finds out about a file. Sizes are in bytes.
type geometry struct {
	logical, physical  uint32
	minIO, optIO       uint32
	discardGranularity uint32
	maxDiscard         uint64
	align              uint64
	readOnly           bool
	memory             bool // the file system is in memory: no I/O waits for a disk
}

func newDevice(path string, f file, g geometry, o Options) *Device {
	d := &Device{path: path, f: f, align: g.align, inline: g.memory}
	d.limits = blk.Limits{
		LogicalBlock: g.logical, PhysicalBlock: g.physical, MinIO: g.minIO, OptIO: g.optIO,
		MaxDiscard: g.maxDiscard / blk.SectorSize, DiscardGranularity: g.discardGranularity,
		MaxWriteZeroes: blk.NoLimit, VolatileCache: true, FUA: true, NoWait: true,
		ReadOnly: o.ReadOnly || g.readOnly,
	}
	if d.limits.MaxDiscard == 0 || d.limits.DiscardGranularity == 0 {
		d.limits.MaxDiscard, d.limits.DiscardGranularity = 0, 0
	}
	d.noTry.Store(o.Direct)
	d.vecs.New = func() any { return new(vec) }
	d.bounce.New = func() any { p := aligned(bounceSize, d.align); return &p }
	d.pool = newPool(orDefault(o.Workers, 8), orDefault(o.Queue, 128), d.perform)
	return d
}

func orDefault(n, def int) int {
	if n <= 0 {
		return def
	}
	return n
}

// Submit starts b: inline when that does not block, as on a file system in
// memory, else on the pool.
func (d *Device) Submit(b *blk.Bio) {
	if st := d.refuse(b); st != blk.OK {
		b.Complete(st)
		return
	}
	if d.inline {
		b.Complete(d.perform(b))
		return
	}
	if d.try(b) {
		b.Complete(blk.OK)
		return
	}
	d.pool.submit(b)
}

func (d *Device) refuse(b *blk.Bio) blk.Status {
	end := b.EndSector()
	switch {
	case b.Op != blk.Flush && (end < b.Sector || end > d.size.Load()):
		return blk.Invalid
	case d.limits.ReadOnly && b.Op.IsWrite() && b.Op != blk.Flush:
		return blk.ReadOnly
	}
	return blk.OK
}

// perform carries b out on the pool.
func (d *Device) perform(b *blk.Bio) blk.Status {
	if b.Flags&blk.Preflush != 0 {
		if err := d.flush(); err != nil {
			return blk.StatusOf(err)
		}
	}
	return statusOf(d.do(b))
}

func statusOf(err error) blk.Status {
	switch {
	case errors.Is(err, errors.ErrUnsupported):
		return blk.NotSupported
	case full(err):
		return blk.NoSpace
	}
	return blk.StatusOf(err)
}

// full reports whether the file system, or what its user may have of it, is.
func full(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

func (d *Device) do(b *blk.Bio) error {
	switch b.Op {
	case blk.Read, blk.Write:
		return d.transfer(b)
	case blk.Flush:
		return d.flush()
	case blk.Discard:
		off, n := span(b)
		return retry(func() error { return d.f.discard(off, n) })
	case blk.WriteZeroes:
		return d.zero(b)
	}
	return blk.NotSupported
}

// span is the range of b in bytes.
func span(b *blk.Bio) (off, n int64) {
	return int64(b.Sector) << blk.SectorShift, int64(b.Bytes())
}

// flush makes writes durable, unless some were lost already.
func (d *Device) flush() error {
	if d.lost.Load() {
		return blk.IOErr
	}
	if d.limits.ReadOnly {
		return nil
	}
	if err := retry(d.f.sync); err != nil {
		d.lost.Store(true)
		// Whatever the reason, also lack of space: writes that had ended well
		// are gone, so nobody may take it for something that can be repeated.
		return blk.IOErr
	}
	return nil
}

// Limits tells size and abilities.
func (d *Device) Limits() blk.Limits {
	l := d.limits
	l.Size = d.size.Load()
	return l
}

// Refresh reads the size of the file again, returns it in sectors and makes it
// the device's. A last piece shorter than a logical block is left out.
func (d *Device) Refresh() (uint64, error) {
	n, err := d.f.size()
	if err != nil {
		return 0, fmt.Errorf("size of %s: %w", d.path, err)
	}
	n -= n % int64(d.limits.LogicalBlock)
	d.size.Store(uint64(n) >> blk.SectorShift)
	return d.size.Load(), nil
}

// Extents tells where the file has data and where holes. It is a
// [blk.ExtentsFunc] and may block; it lists at most some hundred extents.
func (d *Device) Extents(sector, sectors uint64) ([]blk.Extent, error) {
	const most = 512
	var list []blk.Extent
	for at, end := sector, sector+sectors; at < end && len(list) < most; {
		data, hole, err := d.f.data(int64(at) << blk.SectorShift)
		if err != nil {
			return nil, fmt.Errorf("extents of %s: %w", d.path, err)
		}
		from := min(end, max(at, uint64(data)>>blk.SectorShift))
		to := min(end, max(from, uint64(hole+blk.SectorSize-1)>>blk.SectorShift))
		list = blk.AppendExtent(list, blk.Extent{Sector: at, Sectors: from - at})
		list = blk.AppendExtent(list, blk.Extent{Sector: from, Sectors: to - from, Data: true})
		at = to
	}
	return list, nil
}

// Close waits for the pool and gives up the lock. It does not flush. The error
// of write-back that a flush reported is not repeated.
func (d *Device) Close() error {
	d.pool.close()
	return d.f.close()
}

func (d *Device) String() string { return d.path }

// Create makes a new sparse file of a number of sectors, for its owner only. A
// file that exists is left alone and is an error.
func Create(path string, sectors uint64) error {
	return create(path, int64(sectors)<<blk.SectorShift)
}
