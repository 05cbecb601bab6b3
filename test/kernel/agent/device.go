//go:build linux

package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"udm/test/kernel/conform"
)

// device is a block device opened for direct I/O.
type device struct{ f *os.File }

// openDevice opens a block device, for reading only if it may not be written.
func openDevice(path string) (*device, error) {
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_DIRECT, 0)
	if errors.Is(err, unix.EACCES) || errors.Is(err, unix.EROFS) || errors.Is(err, unix.EPERM) {
		f, err = os.OpenFile(path, os.O_RDONLY|unix.O_DIRECT, 0)
	}
	if err != nil {
		return nil, err
	}
	return &device{f}, nil
}

const page = 4096

// aligned returns a buffer of n bytes at a page's begin, as direct I/O wants it.
func aligned(n int) []byte {
	buf := make([]byte, n+page)
	skip := (page - int(uintptr(unsafe.Pointer(&buf[0]))%page)) % page
	return buf[skip : skip+n : skip+n]
}

// Read implements conform.Device.
func (d *device) Read(buf []byte, off int64) error {
	own := aligned(len(buf))
	n, err := unix.Pread(int(d.f.Fd()), own, off)
	if err == nil && n != len(buf) {
		err = io.ErrUnexpectedEOF
	}
	copy(buf, own)
	return err
}

// Write implements conform.Device.
func (d *device) Write(buf []byte, off int64) error {
	own := aligned(len(buf))
	copy(own, buf)
	n, err := unix.Pwrite(int(d.f.Fd()), own, off)
	if err == nil && n != len(buf) {
		err = io.ErrShortWrite
	}
	return err
}

// Discard implements conform.Device.
func (d *device) Discard(off, n int64) error { return d.rangeIoctl(unix.BLKDISCARD, off, n) }

// Zero implements conform.Device.
func (d *device) Zero(off, n int64) error { return d.rangeIoctl(unix.BLKZEROOUT, off, n) }

func (d *device) rangeIoctl(request uint, off, n int64) error {
	arg := [2]uint64{uint64(off), uint64(n)}
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, d.f.Fd(), uintptr(request), uintptr(unsafe.Pointer(&arg)))
	if errno != 0 {
		return errno
	}
	return nil
}

// Flush implements conform.Device.
func (d *device) Flush() error { return unix.Fsync(int(d.f.Fd())) }

// Limits implements conform.Device, from what sysfs says.
func (d *device) Limits() (conform.Limits, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(d.f.Fd()), &st); err != nil {
		return conform.Limits{}, err
	}
	var l conform.Limits
	var ro, discard int64
	dir := fmt.Sprintf("/sys/dev/block/%d:%d/", unix.Major(st.Rdev), unix.Minor(st.Rdev))
	err := errors.Join(
		readInt(dir+"size", &l.Sectors), readInt(dir+"ro", &ro), readInt(dir+"queue/discard_max_bytes", &discard),
		readInt(dir+"queue/logical_block_size", &l.Block))
	l.ReadOnly, l.Discard = ro != 0, discard != 0
	return l, err
}

// readInt reads a number from a file of sysfs.
func readInt[T int | int64](path string, v *T) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	_, err = fmt.Sscan(strings.TrimSpace(string(text)), v)
	return err
}

// Close implements conform.Device.
func (d *device) Close() error { return d.f.Close() }
