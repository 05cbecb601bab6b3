package nbd

import (
	"io"
	"math"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
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

	paused atomic.Bool
	noted  atomic.Bool  // threads that wait note it; on once the connection is to move
	reader atomic.Int32 // the thread that waits in recv; 0: none is known
	writer atomic.Int32 // in send
	full   bool         // used by the writer: after a pause, not all was sent

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
	for !s.paused.Load() {
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
	return 0, errPaused
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
		case err == unix.EINTR:
		case err == unix.EAGAIN:
			return nil, errStalled
		case err != nil:
			return nil, err
		default:
			segs = dropSent(segs, n)
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
	if s.noted.Load() {
		s.reader.Store(int32(unix.Gettid()))
		defer s.reader.Store(0)
	}
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
		if e != unix.EINTR || s.paused.Load() {
			return 0, e
		}
	}
}

func (s *sock) sendOnce(segs [][]byte, flags int) (int, syscall.Errno) {
	if s.noted.Load() {
		s.writer.Store(int32(unix.Gettid()))
		defer s.writer.Store(0)
	}
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

func (s *sock) pause() { s.paused.Store(true) }

func (s *sock) goOn() {
	s.full = false // nobody writes now
	s.noted.Store(false)
	s.paused.Store(false)
}

// waiters are sockets at which threads may wait.
type waiters []*sock

func (ws *waiters) add(w wire) {
	if s, ok := w.(*sock); ok {
		*ws = append(*ws, s)
	}
}

// note has each thread that waits note that from now on, so that interrupt need not look for it.
func (ws waiters) note() {
	for _, s := range ws {
		s.noted.Store(true)
	}
	ws.look(func(of *atomic.Int32, thread int32) {
		if of != nil {
			of.CompareAndSwap(0, thread)
		}
	})
}

// lookEvery is how many interrupts pass until all threads are looked at. One may have been about to
// wait when it was interrupted, or have noted another thread than the one that waits now.
const lookEvery = 8

// interrupt makes calls return that wait at paused sockets; n counts how often. A call that waits on
// a socket with a timeout ends with EINTR at any signal, also at one that the runtime sends to itself
// and ignores. Threads that wait for something else are left alone: there may be many, and each would
// have to be woken.
func (ws waiters) interrupt(n int) {
	for _, s := range ws {
		signal(s.reader.Load())
		signal(s.writer.Load())
	}
	if n%lookEvery == lookEvery-1 {
		ws.look(func(_ *atomic.Int32, thread int32) { signal(thread) })
	}
}

func signal(thread int32) {
	if thread != 0 {
		_ = unix.Tgkill(os.Getpid(), int(thread), unix.SIGURG) // it may have ended
	}
}

// threadDir has a folder for each thread of this process.
var threadDir = "/proc/self/task"

// look finds the threads that wait at the sockets, and where each is noted; nowhere if the kernel
// does not tell at what it waits.
func (ws waiters) look(found func(of *atomic.Int32, thread int32)) {
	if len(ws) == 0 {
		return
	}
	byFD := make(map[uint64]*sock, len(ws))
	for _, s := range ws {
		byFD[uint64(s.fd)] = s
	}
	threads, err := os.ReadDir(threadDir)
	if err != nil {
		return
	}
	for _, t := range threads {
		tid, err := strconv.Atoi(t.Name())
		if err != nil {
			continue
		}
		call, fd, told := waitsIn(t.Name())
		s := byFD[fd]
		switch {
		case !told:
			found(nil, int32(tid))
		case s == nil:
		case call == unix.SYS_RECVFROM:
			found(&s.reader, int32(tid))
		case call == unix.SYS_SENDTO || call == unix.SYS_SENDMSG:
			found(&s.writer, int32(tid))
		}
	}
}

// waitsIn returns the number of the system call in which a thread waits, and the descriptor; no
// descriptor if it waits in none. told: the kernel tells.
func waitsIn(thread string) (call, fd uint64, told bool) {
	text, err := os.ReadFile(filepath.Join(threadDir, thread, "syscall"))
	if err != nil {
		return 0, 0, false
	}
	words := strings.Fields(string(text))
	if len(words) < 2 {
		return 0, math.MaxUint64, true // it runs
	}
	call, err = strconv.ParseUint(words[0], 10, 64)
	if err == nil {
		fd, err = strconv.ParseUint(words[1], 0, 64)
	}
	if err != nil {
		return 0, math.MaxUint64, true
	}
	return call, fd, true
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
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
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
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	unix.Close(s.fd)
}
