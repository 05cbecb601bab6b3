package ctl

import (
	"errors"
	"strings"
	"syscall"

	"udm/dm"
)

// Error is the error of a command: the kernel's errno, by name because the numbers
// differ between systems, and the reason in words.
type Error struct {
	Errno  string `json:"errno"`
	Reason string `json:"reason,omitempty"`
	// Step is the part of a create that failed: create, reload or resume.
	Step   string  `json:"step,omitempty"`
	Number *Number `json:"number,omitempty"` // of the device that was created and removed again
}

func (e *Error) Error() string {
	if e.Reason == "" {
		return Strerror(e.Unwrap())
	}
	return e.Reason
}

// Unwrap returns the errno, for errors.Is.
func (e *Error) Unwrap() error {
	for n, name := range errnoNames {
		if name == e.Errno {
			return n
		}
	}
	return syscall.EIO
}

// NewError converts an error of the device mapper.
func NewError(err error) *Error {
	var ours *Error
	if errors.As(err, &ours) {
		return ours
	}
	name, ok := errnoNames[dm.ErrnoOf(err)]
	if !ok {
		name = "EIO"
	}
	return &Error{Errno: name, Reason: strings.ReplaceAll(err.Error(), "\n", "; ")}
}

// Strerror is the C library's text for the errno of err.
func Strerror(err error) string {
	s := dm.ErrnoOf(err).Error()
	return strings.ToUpper(s[:1]) + s[1:]
}

var errnoNames = map[syscall.Errno]string{
	syscall.E2BIG: "E2BIG", syscall.EACCES: "EACCES", syscall.EAGAIN: "EAGAIN", syscall.EBADF: "EBADF", syscall.EBADMSG: "EBADMSG",
	syscall.EBUSY: "EBUSY", syscall.EEXIST: "EEXIST", syscall.EFBIG: "EFBIG", syscall.EINTR: "EINTR",
	syscall.EINVAL: "EINVAL", syscall.EIO: "EIO", syscall.EISDIR: "EISDIR", syscall.EILSEQ: "EILSEQ", syscall.ELOOP: "ELOOP",
	syscall.EMFILE: "EMFILE", syscall.ENAMETOOLONG: "ENAMETOOLONG", syscall.ENFILE: "ENFILE",
	syscall.ENODATA: "ENODATA", syscall.ENODEV: "ENODEV", dm.ENOKEY: "ENOKEY", syscall.ENOTDIR: "ENOTDIR", syscall.ENOENT: "ENOENT", syscall.ENOMEM: "ENOMEM",
	syscall.ENOSPC: "ENOSPC", syscall.ENOSYS: "ENOSYS", syscall.ENOTBLK: "ENOTBLK", syscall.ENOTSUP: "EOPNOTSUPP",
	syscall.ENOTTY: "ENOTTY", syscall.ENOTEMPTY: "ENOTEMPTY", syscall.ESTALE: "ESTALE", syscall.ENXIO: "ENXIO", syscall.EOVERFLOW: "EOVERFLOW", syscall.EPERM: "EPERM",
	syscall.ERANGE: "ERANGE", syscall.EROFS: "EROFS", syscall.ESRCH: "ESRCH", syscall.ETIMEDOUT: "ETIMEDOUT",
}
