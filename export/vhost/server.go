//go:build linux

package vhost

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"udm/export"
)

// Server serves one device on Unix sockets. All methods are safe for concurrent
// use.
type Server struct {
	cfg Config

	mu        sync.Mutex
	changed   *sync.Cond                 // of what Hand waits for, with mu
	closing   bool                       // guarded by mu
	handing   *handing                   // guarded by mu; nil: nobody hands it over
	listeners map[*net.UnixListener]bool // guarded by mu
	accepting int                        // guarded by mu; listeners that may return a front end
	reading   bool                       // guarded by mu; a message may begin
	conn      *net.UnixConn              // guarded by mu; the front end
	session   *session                   // guarded by mu; its session, once created
	running   sync.WaitGroup             // added to under mu
}

// New creates a server.
func New(cfg Config) (*Server, error) {
	if cfg.Exports == nil {
		return nil, errors.New("vhost: no exports")
	}
	cfg.setDefaults(runtime.GOMAXPROCS(0))
	s := &Server{cfg: cfg, listeners: make(map[*net.UnixListener]bool)}
	s.changed = sync.NewCond(&s.mu)
	return s, nil
}

// Serve accepts front ends from l until the server is closed, when it returns
// ErrClosed, or l fails. It closes l.
func (s *Server) Serve(l *net.UnixListener) error { return s.Listen(l)() }

// Listen is the beginning of Serve; accept is the rest. Call both.
func (s *Server) Listen(l *net.UnixListener) (accept func() error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing {
		l.Close()
		return func() error { return ErrClosed }
	}
	s.listeners[l] = true
	s.accepting++
	s.running.Add(1)
	return func() error { return s.accept(l) }
}

func (s *Server) accept(l *net.UnixListener) error {
	defer s.running.Done()
	defer l.Close()
	for {
		c, err := l.AcceptUnix()
		if err == nil {
			s.accepted(c)
		} else if err = s.acceptFailed(l, err); err != nil {
			return err
		}
	}
}

func (s *Server) accepted(c *net.UnixConn) {
	if err := s.enter(c); err != nil {
		s.drop(err)
		return
	}
	go func() { s.drop(s.entered(c)) }()
}

// drop logs why a front end is not served any more.
func (s *Server) drop(err error) {
	if err != nil && err != ErrMoved {
		s.cfg.Log.Warn("vhost-user front end dropped", "export", s.cfg.Name, "reason", err)
	}
}

// acceptFailed returns the error of Serve, or nil if Hand, which interrupts it, is called off.
func (s *Server) acceptFailed(l *net.UnixListener, err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.accepting--
	s.changed.Broadcast()
	for s.handing != nil {
		s.changed.Wait()
	}
	switch {
	case s.closing:
		err = ErrClosed
	case errors.Is(err, os.ErrDeadlineExceeded):
		s.accepting++
		return nil
	}
	delete(s.listeners, l)
	return err
}

// ServeConn serves a front end until it disconnects, its last bio has ended, and all
// its resources are released. The error says why it ended; nil if the front end
// disconnected between two messages.
func (s *Server) ServeConn(c *net.UnixConn) error {
	if err := s.enter(c); err != nil {
		return err
	}
	return s.entered(c)
}

func (s *Server) entered(c *net.UnixConn) error {
	x, err := s.cfg.Exports.Open(s.cfg.Name)
	if err != nil {
		s.leave()
		return err
	}
	b := &broken{conn: c}
	return s.serve(newSession(x, &s.cfg, b.fail), b)
}

// serve serves a session, which it closes.
func (s *Server) serve(session *session, b *broken) error {
	defer s.leave()
	defer session.export.Done()
	defer session.close()
	s.show(session)
	defer s.show(nil)
	if err := s.messages(b.conn, session); err != nil {
		b.fail(err)
	}
	return b.reason()
}

// enter makes c the front end unless there is one, which closes it: virtio has one driver.
func (s *Server) enter(c *net.UnixConn) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closing:
		c.Close()
		return ErrClosed
	case s.conn != nil:
		c.Close()
		return errors.New("another front end is using the device")
	}
	s.conn = c
	s.running.Add(1)
	return nil
}

// show makes the front end's session visible to Clients and Changed.
func (s *Server) show(session *session) {
	s.mu.Lock()
	s.session = session
	s.mu.Unlock()
}

func (s *Server) leave() {
	s.mu.Lock()
	s.conn.Close()
	s.conn, s.reading = nil, false
	s.changed.Broadcast()
	s.mu.Unlock()
	s.running.Done()
}

// Clients lists the connected front end, if any.
func (s *Server) Clients() (list []export.Client) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn != nil {
		c := export.Client{Export: s.cfg.Name}
		if s.session != nil {
			c.ReadOnly = s.session.offered&featReadOnly != 0
		}
		list = append(list, c)
	}
	return list
}

// Changed tells the front end that the device's size may have changed, if it accepts
// such messages.
func (s *Server) Changed() {
	s.mu.Lock()
	session := s.session
	s.mu.Unlock()
	if session != nil {
		session.backend.configChanged()
	}
}

// Close takes no more requests, waits until the last bio has ended and is answered,
// and closes the connection.
func (s *Server) Close() error {
	s.mu.Lock()
	s.closing = true
	for l := range s.listeners {
		l.Close()
	}
	if s.conn != nil {
		_ = s.conn.CloseRead() // this ends its session
	}
	s.mu.Unlock()
	s.running.Wait()
	return nil
}

// broken keeps the first reason why a connection must end, and ends it.
type broken struct {
	conn *net.UnixConn
	mu   sync.Mutex
	err  error // guarded by mu
}

func (b *broken) fail(err error) {
	b.mu.Lock()
	if b.err == nil {
		b.err = err
	}
	b.mu.Unlock()
	b.conn.Close()
}

func (b *broken) reason() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.err
}

// messages handles messages until the front end disconnects.
func (s *Server) messages(c *net.UnixConn, session *session) error {
	for {
		h, payload, f, err := s.read(c)
		if err == errInterrupted {
			if s.handOver(c, session) {
				return ErrMoved
			}
			continue
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			f.close()
			return err
		}
		answer, err := session.receive(h, payload, f)
		if err != nil {
			return err
		}
		if err := s.send(c, answer); err != nil {
			return err
		}
	}
}

// send sends an answer, if there is one.
func (s *Server) send(c *net.UnixConn, a answer) error {
	if len(a.bytes) == 0 {
		return nil
	}
	var oob []byte
	if a.file != nil {
		defer a.file.Close()
		oob = unix.UnixRights(int(a.file.Fd()))
	}
	if err := c.SetWriteDeadline(time.Now().Add(s.cfg.StallTimeout)); err != nil {
		return err
	}
	_, _, err := c.WriteMsgUnix(a.bytes, oob, nil)
	return err
}

// read reads a message. A front end may be silent between messages for ever.
func (s *Server) read(c *net.UnixConn) (h header, payload []byte, f fds, err error) {
	head := make([]byte, headerLen)
	oob := make([]byte, unix.CmsgSpace(4*maxRegions))
	if err := s.awaitMessage(c); err != nil {
		return h, nil, nil, err
	}
	n, oobn, flags, _, err := c.ReadMsgUnix(head, oob)
	f, ferr := rights(oob[:oobn])
	derr := s.messageBegins(c)
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return h, nil, f, errInterrupted
	case err != nil:
		return h, nil, f, err
	case n == 0:
		return h, nil, f, io.EOF
	case ferr != nil:
		return h, nil, f, ferr
	case flags&unix.MSG_CTRUNC != 0:
		return h, nil, f, errors.New("too many file descriptors")
	case derr != nil:
		return h, nil, f, derr
	}
	if _, err := io.ReadFull(c, head[n:]); err != nil {
		return h, nil, f, fmt.Errorf("in the middle of a message: %w", err)
	}
	if h, err = decodeHeader(head); err != nil {
		return h, nil, f, err
	}
	payload = make([]byte, h.size)
	if _, err := io.ReadFull(c, payload); err != nil {
		return h, nil, f, fmt.Errorf("in the middle of %v: %w", h.request, err)
	}
	return h, payload, f, nil
}

// rights returns the file descriptors sent with a message; with an error, those found
// so far.
func rights(oob []byte) (f fds, err error) {
	list, err := unix.ParseSocketControlMessage(oob)
	for i := range list {
		got, e := unix.ParseUnixRights(&list[i])
		if e != nil {
			err = e
		}
		f = append(f, got...)
	}
	return f, err
}
