package blk

import (
	"errors"
	"fmt"
	"syscall"
)

// Status is the result of a bio, one byte as in the kernel's blk_status_t. It
// implements error, even for OK: use [Status.Err] to get nil for OK.
type Status uint8

const (
	OK           Status = iota
	IOErr               // the medium or the layer below failed
	NotSupported        // this device does not support the op, or not now
	NoSpace             // a device that allocates has no room left now: see the package comment
	WouldBlock          // a NoWait bio would have had to wait
	Invalid             // out of range, unaligned, or malformed
	ReadOnly            // a write to a read-only device
	Timeout             // a lower device did not answer in time
	Target              // the device does not support the op, although its limits said so
	Offline             // the device is gone
	numStatus
)

var statusTable = [numStatus]struct {
	text  string
	errno syscall.Errno
}{
	OK:           {"ok", 0},
	IOErr:        {"I/O error", syscall.EIO},
	NotSupported: {"operation not supported", syscall.EOPNOTSUPP},
	NoSpace:      {"no space left on device", syscall.ENOSPC},
	WouldBlock:   {"would block", syscall.EAGAIN},
	Invalid:      {"invalid request", syscall.EINVAL},
	ReadOnly:     {"read-only device", syscall.EPERM},
	Timeout:      {"timed out", syscall.ETIMEDOUT},
	Target:       {"operation refused by the device", syscall.EIO},
	Offline:      {"no such device", syscall.ENODEV},
}

func (s Status) Error() string { return s.String() }

func (s Status) String() string {
	if s < numStatus {
		return statusTable[s].text
	}
	return fmt.Sprintf("status(%d)", uint8(s))
}

// Errno returns Linux's errno for the status.
func (s Status) Errno() syscall.Errno {
	if s < numStatus {
		return statusTable[s].errno
	}
	return syscall.EIO
}

// Err returns nil for OK, else s.
func (s Status) Err() error {
	if s == OK {
		return nil
	}
	return s
}

// StatusOf returns the status for an error of the operating system or of this
// package: OK for nil, IOErr for an unknown error.
func StatusOf(err error) Status {
	if err == nil {
		return OK
	}
	var st Status
	if errors.As(err, &st) {
		return st
	}
	for s := IOErr; s < numStatus; s++ {
		if errors.Is(err, statusTable[s].errno) {
			return s
		}
	}
	return IOErr
}
