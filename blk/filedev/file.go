package filedev

import "os"

// file is the operating system's interface to a file. Each method makes one
// system call and is safe for concurrent use. Transfers may be short, and any
// call may return EINTR. Calls that the system lacks return
// errors.ErrUnsupported. Offsets and lengths are in bytes.
type file interface {
	// readv fills bufs from off on; 0 bytes without an error mean the end of the
	// file.
	readv(bufs [][]byte, off int64, m mode) (int, error)
	// writev writes bufs from off on.
	writev(bufs [][]byte, off int64, m mode) (int, error)
	// sync makes everything written durable.
	sync() error
	// discard deallocates.
	discard(off, n int64) error
	// zero makes a range read as zeroes without writing it, and deallocates
	// it when unmap is set.
	zero(off, n int64, unmap bool) error
	size() (int64, error)
	// space is what the file takes, and what of its file system is free and there
	// is at all. A block device has all its space.
	space() (taken, free, all uint64, err error)
	// data finds the first data from off on and the hole after it. Both are the
	// last sector boundary of an int64 if there is no more data.
	data(off int64) (data, hole int64, err error)
	// hand returns another descriptor of the open file. close then leaves its lock.
	hand() (*os.File, error)
	close() error
}

// mode modifies a transfer.
type mode uint8

const (
	plain   mode = iota
	try          // a read: fail or return fewer bytes rather than wait
	durable      // a write: durable when it returns
)
