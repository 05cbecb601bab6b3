package nbd

import (
	"errors"
	"io"
	"net"
	"os"
	"sync/atomic"
	"time"
)

// wire is the byte stream of a connection in transmission. One goroutine at a
// time calls read, and one write; any goroutine may call closeRead and abort at
// any time. close is the last call.
type wire interface {
	// read waits for bytes and returns those available, like io.Reader. inside is
	// true in the middle of a request; waiting longer than StallTimeout is then
	// an error.
	read(p []byte, inside bool) (int, error)
	// write sends all of segs, in order. After pause it sends what it can without
	// waiting and returns the rest, which is then the rest of all that follows.
	write(segs [][]byte) (rest [][]byte, err error)
	// tryWrite sends as much of segs as it can without waiting and returns the
	// rest.
	tryWrite(segs [][]byte) (rest [][]byte, err error)
	// closeRead makes read return the bytes that have arrived, then io.EOF.
	closeRead()
	// pause makes read return errPaused soon, and a write that waits return; go on
	// undoes it.
	pause()
	goOn()
	// detach gives up the socket, without ending it: nil if the stream is none.
	detach() *os.File
	// abort makes every call fail soon.
	abort()
	close()
}

// errPaused is the error of a read that pause has ended. Nothing is lost.
var errPaused = errors.New("nbd: the connection is moved")

var errStalled = errors.New("nbd: the client stalled in the middle of a request or does not read replies")

// stream is a wire over any byte stream. It enforces the stall timeout if the
// stream has deadlines; otherwise only the stream itself ends a wait.
type stream struct {
	rw     io.ReadWriter
	stall  time.Duration
	ending atomic.Bool // closeRead or abort was called
	paused atomic.Bool
	armed  bool   // used by the reader: a read deadline is set
	buf    []byte // used by the writer: joins small segments into one TLS record
}

type deadliner interface {
	SetReadDeadline(time.Time) error
	SetWriteDeadline(time.Time) error
}

var longAgo = time.Unix(1, 0)

func (s *stream) read(p []byte, inside bool) (int, error) {
	if d, ok := s.rw.(deadliner); ok && (inside || s.armed) {
		s.armed = inside
		at := time.Time{}
		if inside {
			at = time.Now().Add(s.stall)
		}
		d.SetReadDeadline(at)
		if s.ending.Load() || s.paused.Load() {
			d.SetReadDeadline(longAgo)
		}
	}
	n, err := s.rw.Read(p)
	if n == 0 && errors.Is(err, os.ErrDeadlineExceeded) {
		switch {
		case s.ending.Load():
			return 0, io.EOF
		case s.paused.Load():
			return 0, errPaused
		}
		return 0, errStalled
	}
	return n, err
}

// joined is the most bytes collected for one Write.
const joined = 64 << 10

func (s *stream) write(segs [][]byte) ([][]byte, error) {
	if d, ok := s.rw.(deadliner); ok {
		d.SetWriteDeadline(time.Now().Add(s.stall))
	}
	s.buf = s.buf[:0]
	for _, p := range segs {
		if len(s.buf)+len(p) > joined {
			if err := s.writeBuf(); err != nil {
				return nil, err
			}
		}
		if len(p) <= joined {
			s.buf = append(s.buf, p...)
		} else if _, err := s.rw.Write(p); err != nil {
			return nil, err
		}
	}
	return nil, s.writeBuf()
}

func (s *stream) writeBuf() error {
	if len(s.buf) == 0 {
		return nil
	}
	_, err := s.rw.Write(s.buf)
	s.buf = s.buf[:0]
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return errStalled
	}
	return err
}

func (s *stream) tryWrite(segs [][]byte) ([][]byte, error) { return segs, nil }

func (s *stream) closeRead() {
	s.ending.Store(true)
	if d, ok := s.rw.(deadliner); ok {
		d.SetReadDeadline(longAgo)
	}
}

func (s *stream) pause() {
	s.paused.Store(true)
	if d, ok := s.rw.(deadliner); ok {
		d.SetReadDeadline(longAgo)
	}
}

func (s *stream) goOn() {
	s.paused.Store(false)
	if d, ok := s.rw.(deadliner); ok && !s.ending.Load() {
		d.SetReadDeadline(time.Time{})
	}
}

func (s *stream) detach() *os.File { return nil }

func (s *stream) abort() {
	s.closeRead()
	if d, ok := s.rw.(deadliner); ok {
		d.SetWriteDeadline(longAgo)
	} else {
		s.close() // nothing else can end a wait
	}
}

func (s *stream) close() {
	if c, ok := s.rw.(io.Closer); ok {
		c.Close()
	}
}

// newWire returns the fastest wire for rw. The wire owns rw from then on.
func newWire(rw io.ReadWriter, stall time.Duration, p *poller) wire {
	if nc, ok := rw.(net.Conn); ok {
		if w := newSock(nc, stall, p); w != nil {
			return w
		}
	}
	return &stream{rw: rw, stall: stall}
}

// dropSent drops the first n bytes of segs. It may shorten a slice in place.
func dropSent(segs [][]byte, n int) [][]byte {
	for len(segs) > 0 && n >= len(segs[0]) {
		n -= len(segs[0])
		segs = segs[1:]
	}
	if n > 0 {
		segs[0] = segs[0][n:]
	}
	return segs
}
