// Package nbdclient attaches to an export of an NBD server and presents one
// connection to it as a [blk.Device]. It serves tests of servers, tools, and
// nbddev, the disk that outlives its connections.
//
//	c, err := nbdclient.DialURI(ctx, "nbd+unix:///disk?socket=nbd.sock", nbdclient.Options{})
//	err = blk.ReadSectors(env.Real(), c, buf, 0)
//	c.Close()
//
// Requests are pipelined: Submit queues, one goroutine sends, another receives.
// Bios end on either of them. When the connection breaks, every bio ends with
// [blk.Offline], including those submitted later, once no goroutine touches their
// buffers any more. The client does not reconnect.
//
// The protocol has no Preflush, no Barrier and no requests without length. If
// bios may have them, wrap the client in a [checkdev.Device] with
// Options.Preflush.
//
// Lock order: Client.mu is a leaf; neither I/O nor a callback happens under it.
package nbdclient

import (
	"bufio"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"sync"

	"udm/blk"
	"udm/env"
	"udm/internal/nbd/proto"
)

// Options configure attaching. The zero value requests structured replies and the
// allocation map, in plain text.
type Options struct {
	Export string
	TLS    *tls.Config // nil: plain text

	Simple   bool // do without structured replies and so without Extents
	Extended bool // ask for extended headers; an error if the server has none

	Env env.Env // of the two goroutines; nil: env.Real
	// Broken, if not nil, is told why the connection ended, unless Close or Abort
	// ended it. All bios have ended by then. It must not call Close.
	Broken func(error)
}

// Client is a connection in transmission.
type Client struct {
	opts  Options
	rw    io.ReadWriteCloser
	in    *bufio.Reader
	name  string
	info  serverInfo
	limit blk.Limits
	wait  env.Wait  // woken when the queue has something, a slot is free, or down was set
	calls sync.Pool // of *call

	sending, receiving env.Queue // a goroutine each

	mu      sync.Mutex
	queue   []*call          // guarded by mu; not sent yet
	pending map[uint64]*call // guarded by mu; by cookie: queued or sent, not ended
	cookie  uint64           // guarded by mu; the last one
	closing bool             // guarded by mu; Close or Abort was called
	down    error            // guarded by mu; why the connection is unusable
	silent  bool             // guarded by mu; the sender has ended
}

// maxPending is the most requests in flight; Submit waits for a slot.
const maxPending = 256

// call is a request in flight.
type call struct {
	req      proto.Request
	head     [proto.ExtRequestSize]byte
	bio      *blk.Bio // nil for a block status request
	status   blk.Status
	list     []blk.Extent
	sending  bool // guarded by Client.mu; the sender has it, or will
	answered bool // guarded by Client.mu; it ends when it is sent
	ended    bool // guarded by Client.mu; for a block status request
}

var errClosed = errors.New("nbdclient: closed")

// New performs the handshake on rw, which it owns from then on.
func New(rw io.ReadWriteCloser, o Options) (*Client, error) {
	c := &Client{opts: o, pending: make(map[uint64]*call), name: o.Export}
	c.calls.New = func() any { return new(call) }
	if err := c.attach(rw); err != nil {
		rw.Close()
		return nil, err
	}
	e := o.Env
	if e == nil {
		e = env.Real()
	}
	c.limit = c.info.limits()
	c.in = bufio.NewReaderSize(c.rw, 64<<10)
	c.wait = e.NewWait()
	c.sending, c.receiving = e.NewQueue("nbd send"), e.NewQueue("nbd receive")
	c.sending.Queue(env.NewWork(c.send))
	c.receiving.Queue(env.NewWork(c.receive))
	return c, nil
}

// Limits implements [blk.Device].
func (c *Client) Limits() blk.Limits { return c.limit }

func (c *Client) String() string { return "nbd:" + c.name }

// Extended reports whether extended headers are in use.
func (c *Client) Extended() bool { return c.info.extended }

// Submit implements [blk.Device].
func (c *Client) Submit(b *blk.Bio) {
	if b.Flags&blk.FastZero != 0 && c.info.flags&proto.FlagFastZero == 0 {
		b.Complete(blk.NotSupported)
		return
	}
	k := c.calls.Get().(*call)
	*k = call{req: requestOf(b), bio: b}
	if c.info.extended && k.req.Cmd == proto.CmdWrite {
		k.req.Flags |= proto.CmdFlagPayloadLen
	}
	if st := c.enqueue(k, b.Flags&blk.NoWait != 0); st != blk.OK {
		b.Complete(st)
	}
}

// enqueue hands a call to the sender, or tells why it will not run.
func (c *Client) enqueue(k *call, noWait bool) blk.Status {
	st, decided := c.tryEnqueue(k, noWait)
	if !decided {
		c.wait.Until(func() bool {
			st, decided = c.tryEnqueue(k, noWait)
			return decided
		})
	}
	c.wait.Wake()
	return st
}

func (c *Client) tryEnqueue(k *call, noWait bool) (st blk.Status, decided bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.down != nil || c.closing:
		return blk.Offline, true
	case len(c.pending) >= maxPending && noWait:
		return blk.WouldBlock, true
	case len(c.pending) >= maxPending:
		return blk.OK, false
	}
	c.cookie++
	k.req.Cookie, k.sending = c.cookie, true
	c.pending[k.req.Cookie] = k
	c.queue = append(c.queue, k)
	return blk.OK, true
}

// send is the sending goroutine.
func (c *Client) send() {
	var calls []*call
	var bufs net.Buffers
	for c.take(&calls) {
		bufs = bufs[:0]
		for _, k := range calls {
			bufs = append(bufs, k.req.Append(k.head[:0], c.info.extended))
			if k.req.Cmd == proto.CmdWrite {
				for seg := range k.bio.Segments() {
					bufs = append(bufs, seg)
				}
			}
		}
		out := bufs
		_, err := out.WriteTo(c.rw)
		c.sent(calls, err)
	}
	c.mu.Lock()
	c.silent = true
	c.mu.Unlock()
	c.wait.Wake()
}

// take waits for calls to send. It returns false if there will be none.
func (c *Client) take(calls *[]*call) (more bool) {
	c.wait.Until(func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		more = c.down == nil
		return !more || len(c.queue) > 0
	})
	if more {
		c.mu.Lock()
		defer c.mu.Unlock()
		*calls, c.queue = c.queue, (*calls)[:0]
	}
	return more
}

// sent ends the calls that were answered before all of them was sent. After an
// error nothing more is sent; but a server that is shutting down stops reading
// and still answers the requests that it has, so receive continues until the
// connection ends.
func (c *Client) sent(calls []*call, err error) {
	var ended []*call
	c.mu.Lock()
	if err != nil && c.down == nil {
		c.down = err
	}
	for _, k := range calls {
		k.sending = false
		if k.answered {
			delete(c.pending, k.req.Cookie)
			ended = append(ended, k)
		}
	}
	c.mu.Unlock()
	for _, k := range ended {
		c.end(k)
	}
}

// finish ends a call that was answered, or leaves that to the sender.
func (c *Client) finish(k *call) {
	c.mu.Lock()
	sending := k.sending
	if k.answered = true; !sending {
		delete(c.pending, k.req.Cookie)
	}
	c.mu.Unlock()
	if sending {
		c.wait.Wake()
		return
	}
	c.end(k)
}

// fail ends the connection with err, and every call with Offline once the sender
// has let go of their buffers.
func (c *Client) fail(err error) {
	c.mu.Lock()
	if c.down == nil {
		c.down = err
	}
	err = c.down
	c.mu.Unlock()
	c.rw.Close()
	c.wait.Wake()
	c.wait.Until(func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.silent
	})
	c.mu.Lock()
	calls, closing := c.pending, c.closing
	c.pending = make(map[uint64]*call)
	c.mu.Unlock()
	for _, k := range calls {
		if !k.answered {
			k.status = blk.Offline
		}
		c.end(k)
	}
	if c.opts.Broken != nil && !closing {
		c.opts.Broken(err)
	}
}

// end completes a call that is no longer in pending.
func (c *Client) end(k *call) {
	if b, st := k.bio, k.status; b != nil {
		c.calls.Put(k)
		b.Complete(st)
	} else {
		c.mu.Lock()
		k.ended = true
		c.mu.Unlock()
	}
	c.wait.Wake()
}

// Err returns the reason why the connection is down, or nil while it is up.
func (c *Client) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.down
}

// Abort ends the connection at once, and with it all bios; Close waits for that.
// Any goroutine may call it at any time.
func (c *Client) Abort() {
	c.mu.Lock()
	c.closing = true
	if c.down == nil {
		c.down = errClosed
	}
	c.mu.Unlock()
	c.rw.Close()
	c.wait.Wake()
}

// Close waits for all submitted bios, sends a disconnect and closes the
// connection. It waits for as long as the server makes it; Abort ends that.
func (c *Client) Close() error {
	c.mu.Lock()
	c.closing = true
	c.mu.Unlock()
	c.wait.Until(func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.down != nil || len(c.pending) == 0
	})
	err := c.Err()
	if err == nil {
		c.rw.Write(proto.Request{Cmd: proto.CmdDisc}.Append(nil, c.info.extended))
	}
	c.Abort()
	c.sending.Close()
	c.receiving.Close()
	return err
}
