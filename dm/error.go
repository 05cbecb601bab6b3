package dm

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"

	"udm/blk"
)

// Error is the error of a control operation: the errno that the kernel would return,
// and the reason in words. errors.Is finds the errno.
type Error struct {
	Errno  syscall.Errno
	Reason string // the kernel's ti->error or log line; may be empty
	Cause  error  // has the same errno; may be nil
}

var errRemoved = Errorf(syscall.ENXIO, "device has been removed")

// Errorf returns an [*Error] with a formatted reason.
func Errorf(errno syscall.Errno, format string, args ...any) error {
	return &Error{Errno: errno, Reason: fmt.Sprintf(format, args...)}
}

// Because returns err with a reason before its own text. The errno stays; nil stays
// nil.
func Because(err error, reason string) error {
	if err == nil {
		return nil
	}
	return &Error{ErrnoOf(err), reason, err}
}

func (e *Error) Error() string {
	switch {
	case e.Reason == "":
		return e.Errno.Error()
	case e.Cause != nil:
		return e.Reason + ": " + e.Cause.Error()
	case e.complete():
		return e.Reason
	}
	return e.Reason + ": " + e.Errno.Error()
}

// complete reports whether the reason needs no text of the errno after it, because it
// ends with a remedy or with that text.
func (e *Error) complete() bool {
	said := []string{e.Errno.Error()}
	if st := blk.StatusOf(e.Errno); st.Errno() == e.Errno {
		said = append(said, st.Error())
	}
	return strings.Contains(e.Reason, "; ") || slices.ContainsFunc(said, func(s string) bool { return strings.HasSuffix(e.Reason, s) })
}

func (e *Error) Unwrap() error { return e.Errno }

// ErrnoOf returns the errno in err: 0 for nil, EINVAL if err has none.
func ErrnoOf(err error) syscall.Errno {
	if err == nil {
		return 0
	}
	var n syscall.Errno
	if errors.As(err, &n) {
		return n
	}
	return syscall.EINVAL
}
