package volume

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// takeSpace takes the space of a file of so many bytes as far as it has none, if the
// file system can do that.
func takeSpace(h *os.File, size uint64, whole bool) error {
	if !whole || size == 0 {
		return nil
	}
	for {
		switch err := unix.Fallocate(int(h.Fd()), 0, 0, int64(size)); {
		case err == nil || errors.Is(err, errors.ErrUnsupported):
			return nil
		case !errors.Is(err, unix.EINTR):
			return &os.PathError{Op: "allocate", Path: h.Name(), Err: err}
		}
	}
}
