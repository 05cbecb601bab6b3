//go:build linux && (amd64 || arm64)

package notify

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// Exec makes this process the program at path, under the filter, and sends the
// listener over a connected Unix socket. It returns only if that fails.
//
// The program is killed when the thread ends that has started this process, because
// without a supervisor each intercepted call would fail.
func Exec(f Filter, socket int, path string, argv, env []string) error {
	runtime.LockOSThread() // the filter is the thread's
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("no_new_privs: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
		return fmt.Errorf("parent death signal: %w", err)
	}
	fd, err := f.install()
	if err != nil {
		return unsupported(err)
	}
	if err := unix.Sendmsg(socket, []byte{0}, unix.UnixRights(fd), nil, 0); err != nil {
		return err
	}
	_, _ = unix.Close(fd), unix.Close(socket)
	return &os.PathError{Op: "exec", Path: path, Err: syscall.Exec(path, argv, env)}
}

// unsupported explains why the kernel refuses the filter.
func unsupported(err error) error {
	switch {
	case errors.Is(err, unix.EBUSY):
		return errors.New("another program intercepts system calls here (a container runtime, perhaps); run outside of it")
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOSYS):
		return errors.New("the kernel lacks seccomp user notification as of Linux 5.19; use a newer kernel")
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		return errors.New("seccomp filters are forbidden here; allow the system call seccomp in the container's profile")
	}
	return fmt.Errorf("seccomp: %w", err)
}

// Accept receives the listener from a child that has called Exec. It returns io.EOF's
// kind of error, [ErrNoListener], if the child ends without sending it.
func Accept(socket int) (*Listener, error) {
	b, oob := make([]byte, 1), make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := unix.Recvmsg(socket, b, oob, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		return nil, err
	}
	ms, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil || len(ms) == 0 {
		return nil, ErrNoListener
	}
	fds, err := unix.ParseUnixRights(&ms[0])
	if err != nil {
		return nil, err
	}
	return newListener(fds[0]), nil
}

// ErrNoListener means that the child ended before the program started; it has said why.
var ErrNoListener = errors.New("the program was not started")
