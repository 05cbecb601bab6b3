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

// sock is a wire over a socket. It makes system calls on its own blocking
// descriptor, which the runtime's poller does not know: an arriving message wakes
// only the reader's thread, and a reply costs one send. Each waiting connection
// holds a thread.
type sock struct {
	fd int

	iov []unix.Iovec // used by the writer
	msg unix.Msghdr  // used by the writer

	mu     sync.Mutex
	closed bool // guarded by mu; for shutdown(2), which must not hit a reused descriptor
}

// newSock takes over nc's socket and closes nc, or returns nil and leaves nc
// unchanged.
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
		n, e := s.recv(p)
		switch {
		case n > 0:
			return n, nil
		case e == 0:
			return 0, io.EOF
		case e == unix.EINTR, e == unix.EAGAIN && !inside:
		case e == unix.EAGAIN:
			return 0, errStalled
		default:
			return 0, e
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

// recv calls recv(2), which costs less than read(2) on a socket.
func (s *sock) recv(p []byte) (int, syscall.Errno) {
	n, _, e := syscall.Syscall6(unix.SYS_RECVFROM, uintptr(s.fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)), 0, 0, 0)
	return int(n), e
}

// send sends segs, at most maxIOV of them. It does not allocate once the vector
// has grown.
func (s *sock) send(segs [][]byte, flags int) (int, error) {
	for {
		n, e := s.sendOnce(segs, flags)
		if e == 0 {
			return n, nil
		}
		if e != unix.EINTR {
			return 0, e
		}
	}
}

func (s *sock) sendOnce(segs [][]byte, flags int) (int, syscall.Errno) {
	if p := segs[0]; len(segs) == 1 { // send(2) costs less than sendmsg(2)
		n, _, e := syscall.Syscall6(unix.SYS_SENDTO, uintptr(s.fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)), uintptr(flags), 0, 0)
		return int(n), e
	}
	s.vector(segs[:min(len(segs), maxIOV)])
	n, _, e := syscall.Syscall(unix.SYS_SENDMSG, uintptr(s.fd), uintptr(unsafe.Pointer(&s.msg)), uintptr(flags))
	return int(n), e
}

// vector sets msg to segs.
func (s *sock) vector(segs [][]byte) {
	s.iov = s.iov[:0]
	for _, p := range segs {
		v := unix.Iovec{Base: unsafe.SliceData(p)}
		v.SetLen(len(p))
		s.iov = append(s.iov, v)
	}
	s.msg.Iov = unsafe.SliceData(s.iov)
	s.msg.SetIovlen(len(s.iov))
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
