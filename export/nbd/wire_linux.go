package nbd

import (
	"io"
	"net"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// sock is a wire over a socket, by system calls on a blocking descriptor of its
// own. The runtime's poller does not know the descriptor: a message that arrives
// wakes the reader's thread and nothing else, and a reply costs one sendmsg.
// Each connection that waits holds a thread.
type sock struct {
	fd int

	iov []unix.Iovec // the writer's
	msg unix.Msghdr  // the writer's

	mu     sync.Mutex
	closed bool // guarded by mu; for shutdown(2), which must not hit a reused descriptor
}

// newSock takes the socket out of nc, or returns nil and leaves nc as it is.
func newSock(nc net.Conn, stall time.Duration) wire {
	switch nc.(type) {
	case *net.UnixConn, *net.TCPConn:
	default:
		return nil
	}
	fd, err := dupFD(nc.(syscall.Conn))
	if err != nil {
		return nil
	}
	nc.Close()
	tv := unix.NsecToTimeval(stall.Nanoseconds())
	unix.SetNonblock(fd, false)
	unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv)
	unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &tv)
	return &sock{fd: fd}
}

func dupFD(sc syscall.Conn) (fd int, err error) {
	rc, err := sc.SyscallConn()
	if err != nil {
		return 0, err
	}
	cerr := rc.Control(func(old uintptr) {
		fd, err = unix.FcntlInt(old, unix.F_DUPFD_CLOEXEC, 0)
	})
	if cerr != nil {
		return 0, cerr
	}
	return fd, err
}

func (s *sock) read(p []byte, inside bool) (int, error) {
	for {
		n, err := unix.Read(s.fd, p)
		switch {
		case n > 0:
			return n, nil
		case err == nil:
			return 0, io.EOF
		case err == unix.EINTR, err == unix.EAGAIN && !inside:
		case err == unix.EAGAIN:
			return 0, errStalled
		default:
			return 0, err
		}
	}
}

func (s *sock) write(segs [][]byte) error {
	for len(segs) > 0 {
		n, err := s.send(segs, unix.MSG_NOSIGNAL)
		if err == unix.EAGAIN {
			return errStalled
		}
		if err != nil {
			return err
		}
		segs = dropSent(segs, n)
	}
	return nil
}

func (s *sock) tryWrite(segs [][]byte) (rest [][]byte, err error) {
	for len(segs) > 0 {
		n, err := s.send(segs, unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT)
		if err == unix.EAGAIN {
			return segs, nil
		}
		if err != nil {
			return nil, err
		}
		segs = dropSent(segs, n)
	}
	return nil, nil
}

// send is sendmsg(2) of at most maxIOV segments; it does not allocate once the
// vector has grown.
func (s *sock) send(segs [][]byte, flags int) (int, error) {
	s.iov = s.iov[:0]
	for _, p := range segs[:min(len(segs), maxIOV)] {
		v := unix.Iovec{Base: unsafe.SliceData(p)}
		v.SetLen(len(p))
		s.iov = append(s.iov, v)
	}
	s.msg.Iov = unsafe.SliceData(s.iov)
	s.msg.SetIovlen(len(s.iov))
	for {
		n, _, e := syscall.Syscall(unix.SYS_SENDMSG, uintptr(s.fd), uintptr(unsafe.Pointer(&s.msg)), uintptr(flags))
		if e == 0 {
			return int(n), nil
		}
		if e != unix.EINTR {
			return 0, e
		}
	}
}

const maxIOV = 1024 // IOV_MAX

func (s *sock) closeRead() { s.shutdown(unix.SHUT_RD) }
func (s *sock) abort()     { s.shutdown(unix.SHUT_RDWR) }

func (s *sock) shutdown(how int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		unix.Shutdown(s.fd, how)
	}
}

func (s *sock) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	unix.Close(s.fd)
}
