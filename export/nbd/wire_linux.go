package nbd

import (
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// sock is a wire over a socket, by system calls on its own descriptor, which the
// runtime's poller does not know.
//
//	               nothing comes for longer than directly
//	busy ──────────────────────────────────────────────────▶ quiet
//	  ▲                                                        │
//	  └──────── something comes within soon ───────────────────┘
//
// The reader of a busy connection waits in recv, so that a message wakes only its
// thread, and a reply costs one send. That of a quiet one waits at the server's
// poller and holds no thread. A sender to a client that does not read waits
// likewise: first in send, then at the poller. So every wait ends within directly
// once the connection is paused, and no thread has to be interrupted.
type sock struct {
	fd     int
	poller *poller
	epoll  int    // the poller's descriptor
	id     uint64 // at the poller
	stall  time.Duration

	iov   []unix.Iovec // used by the writer
	msg   unix.Msghdr  // used by the writer
	quiet bool         // used by the reader
	in    side         // the reader waits
	out   side         // the writer waits

	paused atomic.Bool
	full   bool // used by the writer: after a pause, not all was sent

	mu      sync.Mutex
	closed  bool   // guarded by mu; for shutdown(2) and the poller, which must not hit a reused descriptor
	awaited uint32 // guarded by mu; events of epoll
}

const (
	directly = 5 * time.Millisecond // how long a call waits
	soon     = time.Millisecond
)

// Events that end the waits of a side. An end of the connection ends both.
const (
	inEvents  = unix.EPOLLIN | unix.EPOLLRDHUP
	outEvents = unix.EPOLLOUT
	endEvents = unix.EPOLLERR | unix.EPOLLHUP
)

// newSock takes over nc's socket and closes nc, or returns nil and leaves nc
// unchanged.
func newSock(nc net.Conn, stall time.Duration, p *poller) wire {
	switch nc.(type) {
	case *net.UnixConn, *net.TCPConn:
	default:
		return nil
	}
	fd, err := dupFD(nc.(syscall.Conn))
	if err != nil {
		return nil
	}
	s := &sock{fd: fd, stall: stall, quiet: true, in: newSide(), out: newSide()}
	if err := p.add(s); err != nil {
		unix.Close(fd)
		return nil
	}
	nc.Close()
	tv := unix.NsecToTimeval(directly.Nanoseconds())
	unix.SetNonblock(fd, false)
	unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv)
	unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &tv)
	return s
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
	for !s.paused.Load() {
		n, e := s.recv(p)
		switch {
		case n > 0:
			return n, nil
		case e == 0:
			return 0, io.EOF
		case e == unix.EINTR:
		case e != unix.EAGAIN:
			return 0, e
		case !s.awaitIn(inside):
			return 0, errStalled
		}
	}
	return 0, errPaused
}

// awaitIn waits until something comes; false: for longer than the stall timeout.
func (s *sock) awaitIn(inside bool) bool {
	limit := time.Duration(0)
	if inside {
		limit = s.stall
	}
	began := time.Now()
	ok := s.await(&s.in, inEvents, limit)
	s.quiet = time.Since(began) > soon
	return ok
}

func (s *sock) write(segs [][]byte) ([][]byte, error) {
	for len(segs) > 0 {
		if s.paused.Load() {
			rest, err := s.tryWrite(segs)
			s.full = len(rest) > 0
			return rest, err
		}
		n, err := s.send(segs, unix.MSG_NOSIGNAL)
		switch {
		case err == nil:
			segs = dropSent(segs, n)
		case err == unix.EINTR:
		case err != unix.EAGAIN:
			return nil, err
		case !s.await(&s.out, outEvents, s.stall):
			return nil, errStalled
		}
	}
	return nil, nil
}

func (s *sock) tryWrite(segs [][]byte) (rest [][]byte, err error) {
	if s.full {
		return segs, nil
	}
	for len(segs) > 0 {
		n, err := s.send(segs, unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT)
		switch {
		case err == unix.EINTR:
		case err == unix.EAGAIN:
			return segs, nil
		case err != nil:
			return nil, err
		default:
			segs = dropSent(segs, n)
		}
	}
	return nil, nil
}

// recv calls recv(2), which costs less than read(2) on a socket.
func (s *sock) recv(p []byte) (int, syscall.Errno) {
	flags := uintptr(0)
	if s.quiet {
		flags = unix.MSG_DONTWAIT
	}
	n, _, e := syscall.Syscall6(unix.SYS_RECVFROM, uintptr(s.fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)), flags, 0, 0)
	return int(n), e
}

// send sends segs, at most maxIOV of them. It does not allocate once the vector
// has grown.
func (s *sock) send(segs [][]byte, flags int) (int, error) {
	n, e := s.sendSegs(segs, uintptr(flags))
	if e != 0 {
		return 0, e
	}
	return n, nil
}

func (s *sock) sendSegs(segs [][]byte, flags uintptr) (int, syscall.Errno) {
	if p := segs[0]; len(segs) == 1 { // send(2) costs less than sendmsg(2)
		n, _, e := syscall.Syscall6(unix.SYS_SENDTO, uintptr(s.fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)), flags, 0, 0)
		return int(n), e
	}
	s.vector(segs[:min(len(segs), maxIOV)])
	n, _, e := syscall.Syscall(unix.SYS_SENDMSG, uintptr(s.fd), uintptr(unsafe.Pointer(&s.msg)), flags)
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

func (s *sock) pause() {
	s.paused.Store(true)
	s.in.wake()
	s.out.wake()
}

func (s *sock) goOn() {
	s.full = false // nobody writes now
	s.paused.Store(false)
}

// pair returns a pair of connected sockets: ours, and that of the next server.
func pair() (*net.UnixConn, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	file := os.NewFile(uintptr(fds[0]), "nbd")
	defer file.Close()
	ours, err := net.FileConn(file)
	if err != nil {
		unix.Close(fds[1])
		return nil, nil, err
	}
	return ours.(*net.UnixConn), os.NewFile(uintptr(fds[1]), "nbd"), nil
}

// detach implements wire.
func (s *sock) detach() *os.File {
	s.leave()
	return os.NewFile(uintptr(s.fd), "nbd")
}

func (s *sock) shutdown(how int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		unix.Shutdown(s.fd, how)
	}
}

func (s *sock) close() {
	s.leave()
	unix.Close(s.fd)
}

// leave takes the socket from the poller, which would go on watching it in another process.
func (s *sock) leave() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.poller.remove(s)
}
