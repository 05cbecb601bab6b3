package nbd

import (
	"sync"
	"sync/atomic"
	"time"
)

// sender is the part of a connection that sends replies. At most one goroutine
// sends at a time. A goroutine that has replies while none is sending becomes the
// sender and continues until the queue is empty:
//
//	          flush, complete: queue not empty
//	(nobody) ─────────────────────────────────▶ (reader or helper: blocks)
//	   ▲   │                                          ▲        │
//	   │   │ complete on a device's goroutine         │ socket │
//	   │   └────────────────────────────────▶ (device: never blocks)
//	   └──────────────── queue empty ─────────────────┴────────┘
//
// The reader does not take the lock for each of its own completions: they collect
// in conn.batch until the reader would block.
//
// Lock order: sender.mu, then the wire's own lock (for closeRead only). No I/O
// and no callback happens under sender.mu.
type sender struct {
	mu      sync.Mutex
	changed sync.Cond   // mu; a request or slab became free while waiting was set
	wire    wire        // guarded by mu until transmission, then constant
	queue   []*request  // guarded by mu; completed, in order of completion
	sending bool        // guarded by mu
	waiting bool        // guarded by mu; the reader waits for changed
	dead    bool        // guarded by mu; the wire failed, replies are dropped
	parked  atomic.Bool // set by the reader while it waits for the client
	free    *request    // guarded by mu; linked by next
	begun   uint64      // guarded by mu; conn.taken as of the last flush
	ended   uint64      // guarded by mu; requests that were answered or dropped
	held    int         // guarded by mu; bytes of slabs in use

	work []*request // used by the sending goroutine: taken from queue
	segs [][]byte   // used by the sending goroutine: for the wire

	blocked atomic.Int64 // since when, after loaded, the sending goroutine may wait for the client; 0: it does not

	again  []byte // guarded by mu; requests that failed while the connection is moved
	unsent []byte // used by the sending goroutine: replies that were not sent before it is
}

func (s *sender) init() { s.changed.L = &s.mu }

// idleLocked reports whether the reader waits for a request and every request is
// answered. Only while the reader is parked does begun count all requests taken.
func (s *sender) idleLocked() bool { return s.parked.Load() && s.ended == s.begun }

// park is the reader's last step before it blocks for bytes from the client. The
// reader sets parked before it reads stop, and shutdown sets stop before it reads
// parked, so at least one of them sees the other's change.
func (c *conn) park() {
	c.flush()
	c.parked.Store(true)
	if c.stop.Load() >= draining {
		c.mu.Lock()
		c.wakeLocked()
		c.mu.Unlock()
	}
}

// flush sends the reader's batch and all other pending replies, or leaves them to
// the goroutine that is sending. The reader calls it before it blocks.
func (c *conn) flush() {
	if len(c.batch) == 0 && c.begun == c.taken {
		return
	}
	c.mu.Lock()
	c.begun = c.taken
	c.queue = append(c.queue, c.batch...)
	clear(c.batch)
	c.batch, c.batched = c.batch[:0], 0
	c.sendLocked(true)
	c.recycleLocked()
	c.mu.Unlock()
	c.out.rewind()
}

// complete accepts a finished request from a goroutine other than the reader's.
// If block is false it does not wait for the socket.
func (c *conn) complete(r *request, block bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.queue = append(c.queue, r)
	if c.waiting {
		c.changed.Broadcast()
	}
	switch {
	case c.sending:
	case block || c.inFlightLocked() <= 0:
		c.sendLocked(block)
	default:
		c.sending = true
		c.helpers.Add(1)
		go c.sendLater()
	}
}

// inFlightLocked estimates the number of requests that the device is processing.
// It misses those that the reader has started since its last flush.
func (c *conn) inFlightLocked() int {
	return int(c.begun-c.ended) - len(c.queue)
}

// sendLater is the helper that sends when more completions are expected: they
// join the queue before it is scheduled.
func (c *conn) sendLater() {
	defer c.helpers.Done()
	c.mu.Lock()
	c.sending = false
	c.sendLocked(true)
	c.mu.Unlock()
}

// sendLocked sends the queue unless another goroutine is sending. mu is held at
// call and return, but not while sending.
func (c *conn) sendLocked(block bool) {
	if c.sending {
		return
	}
	c.sending = true
	for len(c.queue) > 0 {
		c.work, c.queue = c.queue, c.work[:0]
		if !c.dead && !c.transmitUnlocked(block) {
			return // a helper continues
		}
		c.freeLocked()
	}
	c.sending = false
	c.wakeLocked()
}

// transmitUnlocked releases mu, sends c.work, and takes mu again. It returns
// false if the socket is full and a helper goroutine has taken over.
func (c *conn) transmitUnlocked(block bool) bool {
	c.mu.Unlock()
	c.gather()
	segs, err := c.segs, error(nil)
	if block {
		_, err = c.write(segs)
	} else {
		if segs, err = c.wire.tryWrite(segs); len(segs) > 0 {
			c.helpers.Add(1)
			go c.sendRest(segs)
			c.mu.Lock()
			return false
		}
	}
	if err != nil {
		c.wire.abort()
	}
	c.mu.Lock()
	c.dead = c.dead || err != nil
	return true
}

// sendRest is the helper that continues after a device's goroutine found the
// socket full.
func (c *conn) sendRest(segs [][]byte) {
	defer c.helpers.Done()
	_, err := c.write(segs)
	if err != nil {
		c.wire.abort()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.dead = c.dead || err != nil
	c.freeLocked()
	c.sending = false
	c.sendLocked(true)
}

// loaded is the zero of a clock that nobody sets.
var loaded = time.Now()

// write sends replies, and waits for a client that does not take them.
func (c *conn) write(segs [][]byte) (rest [][]byte, err error) {
	c.blocked.Store(int64(time.Since(loaded)))
	rest, err = c.wire.write(segs)
	c.blocked.Store(0)
	c.leaveUnsent(rest)
	return rest, err
}

// stalled is how long the client has not taken replies.
func (s *sender) stalled() time.Duration {
	if since := s.blocked.Load(); since != 0 {
		return time.Since(loaded) - time.Duration(since)
	}
	return 0
}

func (c *conn) leaveUnsent(segs [][]byte) {
	for _, p := range segs {
		c.unsent = append(c.unsent, p...)
	}
}

// gather builds segs from work, joining replies that are adjacent in memory.
func (c *conn) gather() {
	segs := c.segs[:0]
	var last *request // whose reply is the end of the last segment
	for _, r := range c.work {
		switch {
		case len(r.out) == 0:
			last = nil
		case last != nil && r.outSlab != nil && last.outSlab == r.outSlab && last.outAt+len(last.out) == r.outAt:
			n := len(segs) - 1
			segs[n] = segs[n][:len(segs[n])+len(r.out)]
			last = r
		default:
			segs, last = append(segs, r.out), r
		}
		if r.more != nil {
			segs, last = append(segs, r.more...), nil
		}
	}
	c.segs = segs
}

// freeLocked recycles the requests of c.work.
func (c *conn) freeLocked() {
	for i, r := range c.work {
		c.work[i] = nil
		c.dropLocked(r.inSlab)
		c.dropLocked(r.outSlab)
		r.reset()
		r.next, c.free = c.free, r
	}
	c.ended += uint64(len(c.work))
	c.work = c.work[:0]
	if c.waiting {
		c.changed.Broadcast()
	}
}

func (c *conn) dropLocked(s *slab) {
	if s != nil && s.unref() {
		c.held -= len(s.buf)
		c.srv.memory.give(s)
	}
}

// wakeLocked wakes the reader, and closes a draining connection if it is idle.
func (c *conn) wakeLocked() {
	if c.waiting {
		c.changed.Broadcast()
	}
	if c.stop.Load() >= draining && c.idleLocked() {
		c.wire.closeRead()
	}
}
