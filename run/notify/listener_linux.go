//go:build linux && (amd64 || arm64)

package notify

import (
	"errors"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Listener receives the intercepted calls. It is safe for concurrent use.
type Listener struct {
	fd        int
	receiving sync.Mutex
}

// newListener asks the kernel to switch directly between caller and supervisor, where
// it can (Linux 6.6).
func newListener(fd int) *Listener {
	const setFlags, syncWakeUp = 0x40082104, 1
	_, _, _ = unix.Syscall(unix.SYS_IOCTL, uintptr(fd), setFlags, syncWakeUp)
	return &Listener{fd: fd}
}

// Close ends interception: further calls of the filter fail with ENOSYS.
func (l *Listener) Close() error { return unix.Close(l.fd) }

// poll waits until a call can be received or all programs under the filter have ended;
// it is false then.
func (l *Listener) poll() bool {
	p := []unix.PollFd{{Fd: int32(l.fd), Events: unix.POLLIN}}
	for {
		_, err := unix.Poll(p, -1)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil || p[0].Revents&unix.POLLHUP != 0:
			return false
		default:
			return true
		}
	}
}

// Call is an intercepted system call; it has the layout of struct seccomp_notif.
type Call struct {
	id    uint64
	TID   uint32 // the calling thread
	flags uint32
	NR    int32
	arch  uint32
	ip    uint64
	Args  [6]uint64
}

// response is struct seccomp_notif_resp.
type response struct {
	id    uint64
	val   int64
	err   int32
	flags uint32
}

// injection is struct seccomp_notif_addfd.
type injection struct {
	id                              uint64
	flags, source, number, newFlags uint32
}

// Receive waits for the next call. It is nil when all programs have ended. One receiver
// waits at a time, since the kernel would let a second one wait for ever.
func (l *Listener) Receive() *Call {
	l.receiving.Lock()
	defer l.receiving.Unlock()
	for l.poll() {
		c := new(Call)
		err := l.ioctl(unix.SECCOMP_IOCTL_NOTIF_RECV, unsafe.Pointer(c))
		switch {
		case err == nil:
			return c
		case !errors.Is(err, unix.EINTR) && !errors.Is(err, unix.ENOENT): // ENOENT: killed before it was received
			return nil
		}
	}
	return nil
}

// Continue lets the kernel run the call.
func (l *Listener) Continue(c *Call) {
	l.respond(response{id: c.id, flags: unix.SECCOMP_USER_NOTIF_FLAG_CONTINUE})
}

// Return ends the call with a result.
func (l *Listener) Return(c *Call, val int64) { l.respond(response{id: c.id, val: val}) }

// Fail ends the call with an error.
func (l *Listener) Fail(c *Call, errno unix.Errno) {
	l.respond(response{id: c.id, err: -int32(errno)})
}

// respond may fail only because the caller is gone.
func (l *Listener) respond(r response) {
	_ = l.ioctl(unix.SECCOMP_IOCTL_NOTIF_SEND, unsafe.Pointer(&r))
}

// Inject gives a descriptor away to the caller: it is closed here, before the call ends
// with the number that it has there. Else a file could still be open for a moment when
// the caller has closed it. And it takes two steps: where the kernel ends the call as it
// adds the descriptor (SECCOMP_ADDFD_FLAG_SEND), a signal for this thread in between
// makes the call return 0, so that the caller takes its standard input for the file.
func (l *Listener) Inject(c *Call, fd int, closeOnExec bool) {
	a := injection{id: c.id, source: uint32(fd)}
	if closeOnExec {
		a.newFlags = unix.O_CLOEXEC
	}
	number, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(l.fd), unix.SECCOMP_IOCTL_NOTIF_ADDFD, uintptr(unsafe.Pointer(&a)))
	_ = unix.Close(fd) // the caller has the same file
	if errno != 0 {
		l.Fail(c, errno)
		return
	}
	l.Return(c, int64(number))
}

// Valid reports whether the caller still waits for the answer.
func (l *Listener) Valid(c *Call) bool {
	id := c.id
	return l.ioctl(unix.SECCOMP_IOCTL_NOTIF_ID_VALID, unsafe.Pointer(&id)) == nil
}

func (l *Listener) ioctl(request uintptr, p unsafe.Pointer) error {
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(l.fd), request, uintptr(p)); errno != 0 {
		return errno
	}
	return nil
}
