// Package nbdclient attaches to an export of an NBD server and presents it as a
// [blk.Device]. It serves tests of servers, tools, and stacks on a remote disk.
//
//	c, err := nbdclient.DialURI(ctx, "nbd+unix:///disk?socket=nbd.sock", nbdclient.Options{})
//	err = blk.ReadSectors(env.Real(), c, buf, 0)
//	c.Close()
//
// Requests are pipelined: Submit queues, one goroutine sends, another receives.
// Bios end on the receiving goroutine. When the connection breaks, every bio ends
// with [blk.Offline], including those submitted later. The client does not
// reconnect.
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
	"udm/internal/nbd/proto"
)

// Options configure attaching. The zero value requests structured replies and the
// allocation map, in plain text.
type Options struct {
	Export string
	TLS    *tls.Config // nil: plain text

	Simple   bool // do without structured replies and so without Extents
	Extended bool // ask for extended headers; an error if the server has none
}

// Client is a connection in transmission.
type Client struct {
	opts  Options
	rw    io.ReadWriteCloser
	in    *bufio.Reader
	name  string
	info  serverInfo
	limit blk.Limits

	mu      sync.Mutex
	wake    sync.Cond        // mu; the queue has something, a slot is free, or down was set
	queue   []*call          // guarded by mu; not sent yet
	pending map[uint64]*call // guarded by mu; by cookie: queued or sent, not answered
	cookie  uint64           // guarded by mu; the last one
	closing bool             // guarded by mu; Close was called
	down    error            // guarded by mu; why the connection is unusable

	running sync.WaitGroup
}

// maxPending is the most requests in flight; Submit waits for a slot.
const maxPending = 256

// call is a request in flight.
type call struct {
	req    proto.Request
	bio    *blk.Bio // nil for a block status request
	status blk.Status
	list   []blk.Extent
	done   chan struct{} // for a block status request
}

var errClosed = errors.New("nbdclient: closed")

// New performs the handshake on rw, which it owns from then on.
func New(rw io.ReadWriteCloser, o Options) (*Client, error) {
	c := &Client{opts: o, pending: make(map[uint64]*call), name: o.Export}
	c.wake.L = &c.mu
	if err := c.attach(rw); err != nil {
		rw.Close()
		return nil, err
	}
	c.limit = c.info.limits()
	c.in = bufio.NewReaderSize(c.rw, 64<<10)
	c.running.Add(2)
	go c.send()
	go c.receive()
	return c, nil
}

// Limits implements [blk.Device].
func (c *Client) Limits() blk.Limits { return c.limit }

func (c *Client) String() string { return "nbd:" + c.name }

// Extended reports whether extended headers are in use.
func (c *Client) Extended() bool { return c.info.extended }

// Submit implements [blk.Device].
func (c *Client) Submit(b *blk.Bio) {
	k := &call{req: requestOf(b), bio: b}
	if c.info.extended && k.req.Cmd == proto.CmdWrite {
		k.req.Flags |= proto.CmdFlagPayloadLen
	}
	if err := c.enqueue(k, b.Flags&blk.NoWait != 0); err != nil {
		b.Complete(blk.StatusOf(err))
	}
}

// enqueue hands a call to the sender and returns an error if it will not run.
func (c *Client) enqueue(k *call, noWait bool) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.down == nil && len(c.pending) >= maxPending {
		if noWait {
			return blk.WouldBlock
		}
		c.wake.Wait()
	}
	if c.down != nil || c.closing {
		return blk.Offline
	}
	c.cookie++
	k.req.Cookie = c.cookie
	c.pending[k.req.Cookie] = k
	c.queue = append(c.queue, k)
	c.wake.Broadcast()
	return nil
}

// send is the sending goroutine.
func (c *Client) send() {
	defer c.running.Done()
	var calls []*call
	var bufs net.Buffers
	for c.take(&calls) {
		bufs = bufs[:0]
		for _, k := range calls {
			bufs = append(bufs, k.req.Append(nil, c.info.extended))
			if k.req.Cmd == proto.CmdWrite {
				for seg := range k.bio.Segments() {
					bufs = append(bufs, seg)
				}
			}
		}
		out := bufs
		if _, err := out.WriteTo(c.rw); err != nil {
			c.brokenPipe(err)
			return
		}
	}
}

// take waits for calls to send. It returns false if there will be none.
func (c *Client) take(calls *[]*call) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.down == nil && len(c.queue) == 0 {
		c.wake.Wait()
	}
	*calls, c.queue = c.queue, (*calls)[:0]
	return c.down == nil
}

// brokenPipe refuses further calls. A server that is shutting down stops reading
// but still answers the requests it has, so receive continues until the
// connection ends.
func (c *Client) brokenPipe(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.down == nil {
		c.down = err
	}
	c.wake.Broadcast()
}

// fail ends every call with Offline and the connection with err.
func (c *Client) fail(err error) {
	c.mu.Lock()
	if c.down == nil {
		c.down = err
	}
	calls := c.pending
	c.pending = make(map[uint64]*call)
	c.wake.Broadcast()
	c.mu.Unlock()
	c.rw.Close()
	for _, k := range calls {
		k.status = blk.Offline
		k.end()
	}
}

// end completes the call, which must no longer be in pending.
func (k *call) end() {
	if k.bio != nil {
		k.bio.Complete(k.status)
	} else {
		close(k.done)
	}
}

// Err returns the reason why the connection is down, or nil while it is up.
func (c *Client) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.down
}

// Close waits for all submitted bios, sends a disconnect and closes the
// connection.
func (c *Client) Close() error {
	c.mu.Lock()
	c.closing = true
	for c.down == nil && len(c.pending) > 0 {
		c.wake.Wait()
	}
	err := c.down
	c.mu.Unlock()
	if err == nil {
		c.rw.Write(proto.Request{Cmd: proto.CmdDisc}.Append(nil, c.info.extended))
	}
	c.fail(errClosed)
	c.running.Wait()
	return err
}
