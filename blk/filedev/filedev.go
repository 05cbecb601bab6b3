// Package filedev provides a disk backed by a file or a block device of the host.
//
// # Durability
//
//	write          reaches the page cache, which is a volatile cache
//	flush          fdatasync
//	FUA            RWF_DSYNC, or the write followed by fdatasync
//	discard        punches a hole (BLKDISCARD on a block device)
//	write-zeroes   punches a hole; with NoUnmap, or where that is not possible,
//	               zeroes the range in place; where the file system can do
//	               neither, writes zeroes, or NotSupported with FastZero
//
// The kernel reports a write-back error once and then forgets it together with
// the pages. Once a flush or a FUA write has failed, every later flush and FUA
// write therefore fails too: acknowledged data may be lost, and the only remedy
// is to reopen the file and check its content.
//
// A full file system or an exhausted quota is different: the write ends with
// NoSpace, earlier writes are unaffected, and the same write succeeds once there
// is space.
//
// # Work
//
// A read that the page cache can satisfy runs on the submitter's stack. So does
// all I/O to a file system in memory (tmpfs), which never waits for a disk.
// Everything else runs on a bounded pool of goroutines, which end when idle.
// While Options.Queue bios wait, Submit blocks, first come first served; a bio
// with NoWait ends with WouldBlock instead.
//
// With Direct, reads and plain writes run on a ring of the kernel's io_uring instead when
// others are under way or an End submits them, as long as it has room: see ring. Its goroutine, with a thread of its own, begins
// with the first of them and ends with Close. Through the page cache a ring measured
// slower than the pool, whose goroutines copy side by side. Where the kernel has no
// io_uring, or refuses it, the pool does all.
//
// End runs on a goroutine of the pool or the ring, or on the submitter's. It may
// submit to the same device again but must not otherwise block for long.
//
// # Locking
//
// A file opened for writing is locked (flock), so that neither this process nor
// another one can open it for writing again. A block device is also opened with
// O_EXCL, which refuses a mounted one.
//
// Lock order: pool.mu and ring.mu are leaves; no I/O and no End runs under them.
// (ring.mu is across the write that wakes the ring, which does not block.)
package filedev

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"syscall"

	"udm/blk"
)

// Options configure how a file is opened.
type Options struct {
	ReadOnly bool
	// Direct bypasses the page cache (O_DIRECT), with io_uring where the kernel has
	// it. Buffers that lack the alignment that the file system requires are copied.
	// Linux only.
	Direct  bool
	Workers int // most goroutines doing I/O; 0: 8
	Queue   int // bios that may wait for one before Submit blocks; 0: 128
	// File, if not nil, is the open file, with its lock: see [Device.Hand]. Open then
	// opens and locks nothing, and takes it over.
	File *os.File
	Ring int // most transfers of a Direct file under way by io_uring; 0: 127; negative: none
}

// ErrInUse is the error for a file that is already open for writing.
var ErrInUse = errors.New("already open for writing")

// Device is an open file.
type Device struct {
	path   string
	f      file
	limits blk.Limits // set by Open; Size is in a field of its own
	size   atomic.Uint64
	align  uint64 // required alignment of buffers in bytes; 0: none
	inline bool   // I/O never waits for a disk, so the pool is not needed
	pool   *pool
	ring   *ring     // nil: there is none
	vecs   sync.Pool // of *vec
	bounce sync.Pool // of *[]byte: aligned buffers of bounceSize

	noTry atomic.Bool // the file cannot read without blocking
	lost  atomic.Bool // a write-back error was reported
}

// Open opens a regular file or a block device. The error names the file; it is
// ErrInUse if the file is locked.
func Open(path string, o Options) (*Device, error) {
	f, g, err := openFile(path, o)
	if err != nil {
		return nil, err
	}
	d := newDevice(path, f, g, o)
	_, err = d.Refresh()
	if err == nil && o.Direct && !d.inline {
		d.ring, err = newRing(d, o.Ring)
	}
	if err != nil {
		f.close()
		return nil, err
	}
	return d, nil
}

// geometry describes an open file. Sizes are in bytes.
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

// Submit runs b inline if that does not block, otherwise on the pool.
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
	if !d.ring.take(b) {
		d.pool.submit(b)
	}
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

// perform carries out b.
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

// full reports whether the file system is full or its quota is exhausted.
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

// flush makes writes durable. It fails if writes were lost before.
func (d *Device) flush() error {
	if d.lost.Load() {
		return blk.IOErr
	}
	if d.limits.ReadOnly {
		return nil
	}
	if err := retry(d.f.sync); err != nil {
		d.lost.Store(true)
		// Always IOErr, even for lack of space: acknowledged writes are lost, so
		// repeating the flush does not help.
		return blk.IOErr
	}
	return nil
}

// Limits returns size and features.
func (d *Device) Limits() blk.Limits {
	l := d.limits
	l.Size = d.size.Load()
	return l
}

// Refresh adopts the current size of the file and returns it in sectors. It
// ignores a last part shorter than a logical block.
func (d *Device) Refresh() (uint64, error) {
	n, err := d.f.size()
	if err != nil {
		return 0, fmt.Errorf("size of %s: %w", d.path, err)
	}
	n -= n % int64(d.limits.LogicalBlock)
	d.size.Store(uint64(n) >> blk.SectorShift)
	return d.size.Load(), nil
}

// Extents lists the data and the holes of the file. It is a [blk.ExtentsFunc],
// may block, and returns at most a few hundred extents.
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

// Report warns of a file that may need more space than its file system has left, if
// that is little. It may block as long as the file system does.
func (d *Device) Report() (r blk.Report) {
	taken, free, all, err := d.f.space()
	size := d.size.Load() * blk.SectorSize
	lacks := size - min(size, taken)
	if err == nil && !d.limits.ReadOnly && free < lacks && free < lowWater(all) {
		r.State, r.Free, r.Lacks = "low on space", free, lacks
	}
	return r
}

// lowWater is when a file system has little space left: a twentieth of it, and of small
// ones up to 1 GiB or a quarter.
func lowWater(all uint64) uint64 { return max(all/20, min(all/4, 1<<30)) }

// Hand returns the open file for a Device that goes on with it, in this process or in
// another one: they share its lock, which Close leaves alone from now on.
func (d *Device) Hand() (*os.File, error) { return d.f.hand() }

// Close waits for the pool and releases the lock. It does not flush, and does not
// report a write-back error again.
func (d *Device) Close() error {
	d.ring.close() // may leave work to the pool
	d.pool.close()
	return d.f.close()
}

func (d *Device) String() string { return d.path }

// Create creates a sparse file of the given number of sectors that only its owner
// can access. It is an error if the file exists.
func Create(path string, sectors uint64) error {
	return create(path, int64(sectors)<<blk.SectorShift)
}
