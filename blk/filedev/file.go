package filedev

// file is what a device needs of the operating system. Each call does one
// system call, may be made from many goroutines, and may be cut short: transfers
// move fewer bytes than asked, any call ends with EINTR. What the system lacks is
// an error that is errors.ErrUnsupported. Offsets and lengths are in bytes.
type file interface {
	// readv fills bufs from off on; 0 bytes without an error are the end of
	// the file.
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
	// data finds the first data from off on and the hole behind it. Both are
	// the largest number when there is no more data.
	data(off int64) (data, hole int64, err error)
	close() error
}

// mode is how a transfer is done.
type mode uint8

const (
	plain   mode = iota
	try          // a read: fail or stop short rather than wait
	durable      // a write: on the medium when it returns
)
