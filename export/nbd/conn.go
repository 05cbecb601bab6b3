package nbd

import (
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"udm/blk"
	"udm/export/internal/gate"
	"udm/internal/nbd/proto"
)

// conn is one connection. Its goroutine, the reader, does the handshake, then
// parses requests, submits them and sends the replies of those that completed on
// its stack. See sender.go for how the others are sent.
type conn struct {
	srv  *Server
	base io.ReadWriter // as passed to the server
	stop atomic.Int32  // running, moving, draining or aborted

	// Set before transmission, then constant, except for the size, which the
	// reader updates.
	*session
	dev      blk.Device // the export's
	minBlock uint64     // bytes
	hdrSize  int        // of a request
	readOnly bool

	// Used only by the reader.
	in      input
	out     cutter     // replies are cut from it
	batch   []*request // completed and not yet in the queue
	batched int        // bytes of batch
	spare   *request   // free requests, linked by next
	taken   uint64     // number of requests ever started

	partial []byte         // what has come of a request when the connection was paused
	began   chan struct{}  // closed when the handshake is over
	gone    chan struct{}  // closed when the server has it no more
	helpers sync.WaitGroup // goroutines of slow requests and of the sender
	gate    gate.Client    // counts requests in flight that change the device

	sender
}

// Values of conn.stop, in this order only, except that moving may be called off.
const (
	running  = iota
	moving   // read no more, and let what is read end: see move.go
	draining // answer new requests with ESHUTDOWN, close when no request is in flight
	aborted
)

func newConn(s *Server, rw io.ReadWriter) *conn {
	c := &conn{srv: s, base: rw, began: make(chan struct{}), gone: make(chan struct{})}
	c.sender.init()
	return c
}

// refusalTime is how long a client in the handshake may take to read the refusal of a
// server that shuts down.
const refusalTime = time.Second

func (c *conn) stopping() bool { return c.stop.Load() >= draining }

// run serves the connection to its end and closes it.
func (c *conn) run() error {
	h := &handshake{c: c, rw: c.base}
	h.moreTime()
	s, err := h.run()
	if err != nil || s == nil {
		close(c.began)
		if s != nil {
			s.export.Done()
		}
		closeStream(h.rw)
		return err
	}
	c.setDeadline(time.Time{})
	c.begin(s)
	return c.serve()
}

// serve serves the connection in transmission until it ends or is moved.
func (c *conn) serve() error {
	for {
		err := c.transmission()
		if !errors.Is(err, errPaused) {
			c.end(err)
			return err
		}
		if err := c.move(); err != errPaused {
			return err
		}
	}
}

// begin enters transmission.
func (c *conn) begin(s *session) {
	c.session, c.dev = s, s.export.Device
	lim := c.dev.Limits()
	c.minBlock = uint64(minBlock(&lim))
	c.join(s.export)
	c.readOnly = s.flags&proto.FlagReadOnly != 0
	c.hdrSize = proto.RequestSize
	if s.mode == extended {
		c.hdrSize = proto.ExtRequestSize
	}
	c.in.c, c.out.c = c, c
	w := newWire(s.rw, c.srv.cfg.StallTimeout, &c.srv.poller)
	c.mu.Lock()
	c.wire = w
	c.mu.Unlock()
	switch c.stop.Load() { // it may have changed before the wire was set
	case moving:
		w.pause()
	case draining:
		w.closeRead()
	case aborted:
		w.abort()
	}
	close(c.began)
}

// end waits for the requests in flight, sends their replies unless err broke the
// connection, releases the export and closes the connection.
func (c *conn) end(err error) {
	if err != nil {
		c.wire.abort()
	}
	c.flush()
	c.waitIdle()
	c.helpers.Wait()
	c.in.close()
	c.out.close()
	c.gate.Leave()
	c.session.export.Done() // before the client sees the end: it may remove the device next
	c.wire.close()
}

// shutdown lets the requests in flight finish.
func (c *conn) shutdown() {
	if !c.stop.CompareAndSwap(running, draining) {
		return
	}
	c.mu.Lock()
	w, idle := c.wire, c.idleLocked()
	c.mu.Unlock()
	switch {
	case w == nil:
		c.setDeadline(time.Now().Add(refusalTime))
	case idle:
		w.closeRead()
	}
}

// abort cuts the connection.
func (c *conn) abort() {
	c.stop.Store(aborted)
	c.mu.Lock()
	w := c.wire
	c.mu.Unlock()
	if w != nil {
		w.abort()
	} else if _, ok := c.base.(net.Conn); ok {
		c.setDeadline(longAgo)
	} else {
		closeStream(c.base)
	}
}

// setDeadline limits the handshake; the wire has its own timeouts.
func (c *conn) setDeadline(t time.Time) {
	nc, ok := c.base.(net.Conn)
	if !ok {
		return
	}
	nc.SetDeadline(t)
	if c.stop.Load() == aborted {
		nc.SetDeadline(longAgo)
	}
}

func closeStream(rw io.ReadWriter) {
	if c, ok := rw.(io.Closer); ok {
		c.Close()
	}
}

var (
	errMagic    = errors.New("nbd: request with a wrong magic number")
	errTooLarge = errors.New("nbd: payload too large to skip")
)
