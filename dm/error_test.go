package dm

import (
	"fmt"
	"syscall"
	"testing"

	"udm/blk"
)

// A reason is followed by the text of the errno, unless it says the same or ends with a
// remedy.
func TestErrorSaysItOnce(t *testing.T) {
	for _, c := range []struct {
		err  error
		want string
	}{
		{Errorf(syscall.ENOSPC, "a.img: %v", syscall.ENOSPC), "a.img: no space left on device"},
		{Errorf(syscall.ENOSPC, "a.img: %v", blk.NoSpace), "a.img: no space left on device"},
		{Errorf(syscall.EIO, "a.img: %v", blk.IOErr), "a.img: I/O error"},
		{Errorf(syscall.EBUSY, "a.img: %v", blk.IOErr), "a.img: I/O error: device or resource busy"},
		{Errorf(syscall.EBUSY, "a is in use; close it first"), "a is in use; close it first"},
		{Errorf(syscall.EINVAL, "Gap in table"), "Gap in table: invalid argument"},
		{Because(Errorf(syscall.ENOSPC, "a: %v", blk.NoSpace), "cannot commit"), "cannot commit: a: no space left on device"},
		{&Error{Errno: syscall.EPERM}, fmt.Sprint(syscall.EPERM)},
	} {
		if got := c.err.Error(); got != c.want {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
}
