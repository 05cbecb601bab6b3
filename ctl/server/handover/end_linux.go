package handover

import (
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// process is another process.
type process struct{ fd *os.File }

// peer is the process that has made a pair of sockets, of which fd is one.
func peer(fd int) (process, error) {
	u, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return process{}, os.NewSyscallError("getsockopt", err)
	}
	pid, err := unix.PidfdOpen(int(u.Pid), 0)
	if err != nil {
		return process{}, os.NewSyscallError("pidfd_open", err)
	}
	return process{os.NewFile(uintptr(pid), "process")}, nil
}

// ended waits until the process has ended and all its files are closed. The end of its
// socket does not tell that, because the kernel closes one file after another.
func (p process) ended(limit time.Duration) error {
	for end := time.Now().Add(limit); ; {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(p.fd.Fd()), Events: unix.POLLIN}}, int(max(0, time.Until(end)).Milliseconds()))
		switch {
		case err == unix.EINTR:
		case err != nil:
			return os.NewSyscallError("poll", err)
		case n == 0:
			return fmt.Errorf("the old process has not ended for %v", limit)
		default:
			return nil
		}
	}
}

func (p process) close() { p.fd.Close() }
