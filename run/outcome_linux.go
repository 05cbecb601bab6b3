//go:build linux && (amd64 || arm64)

package run

import (
	"errors"

	"golang.org/x/sys/unix"

	"udm/dm"
	"udm/run/notify"
)

// outcome is how an intercepted call ends.
type outcome struct {
	end   end
	val   int64
	errno unix.Errno
	fd    int // for inject; it is closed after that
	cloex bool
	wait  func() outcome // for later
}

// end is the kind of an outcome.
type end int

const (
	returns   end = iota // with val
	fails                // with errno
	continues            // the kernel runs the call
	injects              // a copy of fd
	later                // wait may block and says what follows
)

var (
	succeed = outcome{}
	kernel  = outcome{end: continues}
)

func result(n int) outcome             { return outcome{val: int64(n)} }
func failure(errno unix.Errno) outcome { return outcome{end: fails, errno: errno} }
func wait(f func() outcome) outcome    { return outcome{end: later, wait: f} }
func inject(fd int, flags uint64) outcome {
	return outcome{end: injects, fd: fd, cloex: flags&unix.O_CLOEXEC != 0}
}

// ended is success or the errno of err.
func ended(err error) outcome {
	if err == nil {
		return succeed
	}
	return failure(errnoOf(err))
}

func errnoOf(err error) unix.Errno {
	var n unix.Errno
	if errors.As(err, &n) {
		return n
	}
	return dm.ErrnoOf(err)
}

// finish ends a call.
func (s *session) finish(c *notify.Call, o outcome) {
	switch o.end {
	case returns:
		s.listener.Return(c, o.val)
	case fails:
		s.listener.Fail(c, o.errno)
	case continues:
		s.listener.Continue(c)
	case injects:
		s.listener.Inject(c, o.fd, o.cloex)
	case later:
		s.working.Go(func() { s.finish(c, o.wait()) })
	}
}
