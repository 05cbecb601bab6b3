package nbd

import (
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// poller waits for the sockets of a server, at one epoll for which the runtime's
// poller waits: neither has a thread. A socket is watched once each time it is asked
// for, so that a busy one costs the poller nothing.
type poller struct {
	running *sync.WaitGroup // counts its goroutine, which runs while there are sockets

	mu    sync.Mutex
	epoll *os.File         // guarded by mu; nil: there are no sockets
	fd    int              // guarded by mu; of epoll
	socks map[uint64]*sock // guarded by mu
	last  uint64           // guarded by mu; id of the newest socket
}

// add begins to watch a socket, for its end only.
func (p *poller) add(s *sock) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.openLocked(); err != nil {
		return err
	}
	p.last++
	s.poller, s.epoll, s.id = p, p.fd, p.last
	if err := s.control(unix.EPOLL_CTL_ADD); err != nil {
		p.closeLocked()
		return err
	}
	p.socks[s.id] = s
	return nil
}

func (p *poller) openLocked() error {
	if p.epoll != nil {
		return nil
	}
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return os.NewSyscallError("epoll_create", err)
	}
	unix.SetNonblock(fd, true) // then the runtime's poller waits for it
	p.fd, p.epoll, p.socks = fd, os.NewFile(uintptr(fd), "epoll"), make(map[uint64]*sock)
	p.running.Add(1)
	go p.run(p.epoll)
	return nil
}

// closeLocked ends the goroutine if there are no sockets.
func (p *poller) closeLocked() {
	if len(p.socks) == 0 {
		p.epoll.Close()
		p.epoll = nil
	}
}

func (p *poller) remove(s *sock) {
	p.mu.Lock()
	defer p.mu.Unlock()
	_ = s.control(unix.EPOLL_CTL_DEL) // it was added
	delete(p.socks, s.id)
	p.closeLocked()
}

// run wakes whoever waits for a socket, until the epoll is closed.
func (p *poller) run(epoll *os.File) {
	defer p.running.Done()
	conn, err := epoll.SyscallConn()
	events := make([]unix.EpollEvent, 128)
	for n := 0; err == nil; {
		err = conn.Read(func(fd uintptr) bool {
			n, _ = unix.EpollWait(int(fd), events, 0) // which nothing interrupts
			return n > 0
		})
		for _, ev := range events[:max(n, 0)] {
			if s := p.sock(ev); s != nil {
				s.happened(ev.Events)
			}
		}
	}
}

// sock returns the socket of an event, or nil if it has been removed.
func (p *poller) sock(ev unix.EpollEvent) *sock {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.socks[uint64(uint32(ev.Fd))|uint64(ev.Pad)<<32]
}

// control tells the epoll, once, of the next of the events that are awaited.
func (s *sock) control(op int) error {
	return unix.EpollCtl(s.epoll, op, s.fd, &unix.EpollEvent{Events: s.awaited | unix.EPOLLONESHOT, Fd: int32(s.id), Pad: int32(s.id >> 32)})
}

// await waits until some events have happened, until the connection is paused, or, if
// limit is not 0, for that long: then it returns false. It may also return true too early.
func (s *sock) await(x *side, events uint32, limit time.Duration) bool {
	s.watch(events)
	if limit == 0 {
		<-x.ready
		return true
	}
	x.limit.Reset(limit)
	defer x.limit.Stop()
	select {
	case <-x.ready:
		return true
	case <-x.limit.C:
		return false
	}
}

func (s *sock) watch(events uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.awaited |= events
	_ = s.control(unix.EPOLL_CTL_MOD) // it was added, and takes no memory
}

// happened wakes the sides whose events these are, and watches for the remaining ones again.
func (s *sock) happened(events uint32) {
	in, out := events&(inEvents|endEvents) != 0, events&(outEvents|endEvents) != 0
	s.mu.Lock()
	if in {
		s.awaited &^= inEvents
	}
	if out {
		s.awaited &^= outEvents
	}
	if s.awaited != 0 && !s.closed {
		_ = s.control(unix.EPOLL_CTL_MOD)
	}
	s.mu.Unlock()
	if in {
		s.in.wake()
	}
	if out {
		s.out.wake()
	}
}

// side is where the reader or the writer of a socket waits.
type side struct {
	ready chan struct{} // has room for one, so that a wake before the wait is not lost
	limit *time.Timer   // used by the side's goroutine
}

func newSide() side {
	x := side{make(chan struct{}, 1), time.NewTimer(time.Hour)}
	x.limit.Stop()
	return x
}

func (x *side) wake() {
	select {
	case x.ready <- struct{}{}:
	default:
	}
}
