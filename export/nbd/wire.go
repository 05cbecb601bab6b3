package nbd

import (
	"errors"
	"io"
	"net"
	"os"
	"sync/atomic"
	"time"
)

// wire is the byte stream of a connection in transmission. read and write are
// called by one goroutine each at a time; closeRead and abort by any, at any
// time; close when no other call is under way or comes.
type wire interface {
	// read waits for bytes and returns those that are there, as io.Reader. In
	// the middle of a request (waiting longer than StallTimeout is an error
	// then) inside is true.
	read(p []byte, inside bool) (int, error)
	// write sends all of segs, in order.
	write(segs [][]byte) error
	// tryWrite sends what it can of segs without waiting and returns the rest.
	tryWrite(segs [][]byte) (rest [][]byte, err error)
	// closeRead makes read return what has arrived, then io.EOF.
	closeRead()
	// abort makes every call fail soon.
	abort()
	close()
}

var errStalled = errors.New("nbd: the client stalled in the middle of a request or does not read replies")

// stream is a wire over any stream of bytes. With deadlines it keeps to the
// stall timeout; without, only the stream itself ends a wait.
type stream struct {
	rw     io.ReadWriter
	stall  time.Duration
	ending atomic.Bool // closeRead or abort was called
	armed  bool        // reader's: a read deadline is set
	buf    []byte      // writer's: small segments joined, for one TLS record
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
		if s.ending.Load() {
			d.SetReadDeadline(longAgo)
		}
	}
	n, err := s.rw.Read(p)
	if n == 0 && errors.Is(err, os.ErrDeadlineExceeded) {
		if s.ending.Load() {
			return 0, io.EOF
		}
		return 0, errStalled
	}
	return n, err
}

// joined is how much is collected for one Write.
const joined = 64 << 10

func (s *stream) write(segs [][]byte) error {
	if d, ok := s.rw.(deadliner); ok {
		d.SetWriteDeadline(time.Now().Add(s.stall))
	}
	s.buf = s.buf[:0]
	for _, p := range segs {
		if len(s.buf)+len(p) > joined {
			if err := s.writeBuf(); err != nil {
				return err
			}
		}
		if len(p) <= joined {
			s.buf = append(s.buf, p...)
		} else if _, err := s.rw.Write(p); err != nil {
			return err
		}
	}
	return s.writeBuf()
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

func (s *stream) abort() {
	s.closeRead()
	if d, ok := s.rw.(deadliner); ok {
		d.SetWriteDeadline(longAgo)
	} else {
		s.close() // what else could end a wait
	}
}

func (s *stream) close() {
	if c, ok := s.rw.(io.Closer); ok {
		c.Close()
	}
}

// newWire makes the fastest wire for rw: it owns rw from then on.
func newWire(rw io.ReadWriter, stall time.Duration) wire {
	if nc, ok := rw.(net.Conn); ok {
		if w := newSock(nc, stall); w != nil {
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
