package leaf

import (
	"errors"
	"io/fs"
	"syscall"
	"testing"
)

// An error names the disk and the reason once.
func TestOpenErrorSaysItOnce(t *testing.T) {
	for _, c := range []struct {
		err   error
		errno syscall.Errno
		want  string
	}{
		{&fs.PathError{Op: "open", Path: "/a", Err: syscall.ENOSPC}, syscall.ENOSPC, "/a: no space left on device"},
		{&fs.PathError{Op: "open", Path: "/a", Err: syscall.EACCES}, syscall.EACCES, "/a: permission denied"},
		{&fs.PathError{Op: "stat", Path: "/a", Err: syscall.ENOENT}, syscall.ENODEV, "/a: no such file or directory: no such device"},
	} {
		err := openError("/a", c.err)
		if err.Error() != c.want || !errors.Is(err, c.errno) {
			t.Errorf("%v, want %s", err, c.want)
		}
	}
}
