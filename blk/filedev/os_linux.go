package filedev

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"udm/blk"
)

// osFile is a file descriptor.
type osFile struct {
	fd    int
	block bool // a block device

	handed atomic.Bool // others use the open file
}

func openFile(path string, o Options) (file, geometry, error) {
	flags := unix.O_RDWR | unix.O_CLOEXEC
	if o.ReadOnly {
		flags = unix.O_RDONLY | unix.O_CLOEXEC
	}
	if o.Direct {
		flags |= unix.O_DIRECT
	}
	f, g, err := openAs(path, flags, o.File)
	if err != nil {
		return nil, g, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	if !o.Direct {
		g.align = 0
	}
	return f, g, nil
}

func openAs(path string, flags int, file *os.File) (*osFile, geometry, error) {
	if file != nil {
		return adopt(file, flags)
	}
	var st unix.Stat_t
	if err := retry(func() error { return unix.Stat(path, &st) }); err != nil {
		return nil, geometry{}, err
	}
	f := &osFile{block: st.Mode&unix.S_IFMT == unix.S_IFBLK}
	writing := flags&unix.O_ACCMODE != unix.O_RDONLY
	switch {
	case !f.block && st.Mode&unix.S_IFMT != unix.S_IFREG:
		return nil, geometry{}, errors.New("neither a regular file nor a block device")
	case f.block && writing:
		flags |= unix.O_EXCL
	}
	err := retry(func() (err error) { f.fd, err = unix.Open(path, flags, 0); return err })
	if err != nil {
		return nil, geometry{}, err
	}
	g, err := f.settle(writing, flags&unix.O_DIRECT != 0)
	if err != nil {
		unix.Close(f.fd)
		return nil, g, err
	}
	return f, g, nil
}

// adopt takes over an open file.
func adopt(file *os.File, flags int) (*osFile, geometry, error) {
	var st unix.Stat_t
	fd, err := unix.FcntlInt(file.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err == nil {
		if err = unix.Fstat(fd, &st); err != nil {
			unix.Close(fd)
		}
	}
	if err != nil {
		return nil, geometry{}, err
	}
	file.Close()
	f := &osFile{fd: fd, block: st.Mode&unix.S_IFMT == unix.S_IFBLK}
	g, err := f.settle(flags&unix.O_ACCMODE != unix.O_RDONLY, flags&unix.O_DIRECT != 0) // has the lock
	if err != nil {
		unix.Close(fd)
		return nil, g, err
	}
	return f, g, nil
}

// settle locks the open file and finds its geometry.
func (f *osFile) settle(writing, direct bool) (geometry, error) {
	if writing {
		err := retry(func() error { return unix.Flock(f.fd, unix.LOCK_EX|unix.LOCK_NB) })
		if err == unix.EWOULDBLOCK {
			return geometry{}, ErrInUse
		} else if err != nil {
			return geometry{}, fmt.Errorf("lock: %w", err)
		}
	}
	if f.block {
		return f.blockGeometry()
	}
	return f.fileGeometry(direct)
}

func (f *osFile) fileGeometry(direct bool) (geometry, error) {
	var st unix.Statx_t
	if err := unix.Statx(f.fd, "", unix.AT_EMPTY_PATH, unix.STATX_BASIC_STATS|unix.STATX_DIOALIGN, &st); err != nil {
		return geometry{}, err
	}
	g := geometry{
		logical: blk.SectorSize, physical: blk.SectorSize, minIO: max(st.Blksize, blk.SectorSize),
		discardGranularity: max(st.Blksize, blk.SectorSize), maxDiscard: blk.NoLimit * blk.SectorSize, align: 4096,
	}
	if direct {
		// Without STATX_DIOALIGN, page alignment is always safe.
		g.logical = 4096
		if st.Mask&unix.STATX_DIOALIGN != 0 && st.Dio_offset_align != 0 {
			g.logical = max(st.Dio_offset_align, blk.SectorSize)
			g.align = uint64(max(st.Dio_mem_align, st.Dio_offset_align))
		}
		g.physical = max(g.physical, g.logical)
	}
	g.memory = f.inMemory()
	return g, nil
}

// inMemory reports whether the file system keeps its files in memory.
func (f *osFile) inMemory() bool {
	var st unix.Statfs_t
	err := retry(func() error { return unix.Fstatfs(f.fd, &st) })
	return err == nil && (st.Type == unix.TMPFS_MAGIC || st.Type == unix.RAMFS_MAGIC)
}

var rwFlags = [...]int{plain: 0, try: unix.RWF_NOWAIT, durable: unix.RWF_DSYNC}

func (f *osFile) readv(bufs [][]byte, off int64, m mode) (int, error) {
	n, err := unix.Preadv2(f.fd, bufs, off, rwFlags[m])
	return max(n, 0), err
}

func (f *osFile) writev(bufs [][]byte, off int64, m mode) (int, error) {
	n, err := unix.Pwritev2(f.fd, bufs, off, rwFlags[m])
	return max(n, 0), err
}

func (f *osFile) sync() error { return unix.Fdatasync(f.fd) }

func (f *osFile) discard(off, n int64) error {
	if f.block {
		return f.blockDiscard(off, n)
	}
	return f.allocate(unix.FALLOC_FL_PUNCH_HOLE, off, n)
}

func (f *osFile) allocate(mode uint32, off, n int64) error {
	if n == 0 {
		return nil
	}
	return unix.Fallocate(f.fd, mode|unix.FALLOC_FL_KEEP_SIZE, off, n)
}

// zero also works on block devices, which punch a hole only if they can zero
// without writing.
func (f *osFile) zero(off, n int64, unmap bool) error {
	if unmap {
		err := f.allocate(unix.FALLOC_FL_PUNCH_HOLE, off, n)
		if !errors.Is(err, errors.ErrUnsupported) {
			return err
		}
	}
	return f.allocate(unix.FALLOC_FL_ZERO_RANGE, off, n)
}

func (f *osFile) size() (int64, error) {
	if f.block {
		return f.blockSize()
	}
	var st unix.Stat_t
	err := unix.Fstat(f.fd, &st)
	return st.Size, err
}

func (f *osFile) space() (taken, free, all uint64, err error) {
	var st unix.Stat_t
	var sfs unix.Statfs_t
	if f.block {
		return 0, 0, 0, errors.ErrUnsupported
	}
	if err := unix.Fstat(f.fd, &st); err != nil {
		return 0, 0, 0, err
	}
	err = retry(func() error { return unix.Fstatfs(f.fd, &sfs) })
	unit := uint64(sfs.Frsize)
	return uint64(st.Blocks) * blk.SectorSize, sfs.Bavail * unit, sfs.Blocks * unit, err
}

func (f *osFile) data(off int64) (int64, int64, error) {
	if f.block {
		return off, math.MaxInt64 - blk.SectorSize, nil
	}
	data, err := unix.Seek(f.fd, off, unix.SEEK_DATA)
	if err == unix.ENXIO {
		return math.MaxInt64 - blk.SectorSize, math.MaxInt64 - blk.SectorSize, nil
	} else if err != nil {
		return 0, 0, err
	}
	hole, err := unix.Seek(f.fd, data, unix.SEEK_HOLE)
	return data, hole, err
}

// close gives the lock up first: requests of a ring keep the file open for a moment
// after they have ended.
func (f *osFile) close() error {
	if f.handed.Load() {
		return unix.Close(f.fd)
	}
	return errors.Join(unix.Flock(f.fd, unix.LOCK_UN), unix.Close(f.fd))
}

func (f *osFile) hand() (*os.File, error) {
	fd, err := unix.FcntlInt(uintptr(f.fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	f.handed.Store(true)
	return os.NewFile(uintptr(fd), "disk"), nil
}

// create makes a file of size bytes without data.
func create(path string, size int64) error {
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return &fs.PathError{Op: "create", Path: path, Err: err}
	}
	err = retry(func() error { return unix.Ftruncate(fd, size) })
	if cerr := unix.Close(fd); err == nil {
		err = cerr
	}
	if err != nil {
		unix.Unlink(path)
		return &fs.PathError{Op: "create", Path: path, Err: err}
	}
	return nil
}
