package nbddev

import (
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"udm/blk"
	"udm/blk/nbdclient"
)

var errClosed = errors.New("closed")

// refusal is the error for an export that differs from the one before.
type refusal string

func (r refusal) Error() string { return string(r) }

// broken is called by a client of s whose connection broke.
func (d *Device) broken(s *session, err error) {
	d.mu.Lock()
	if d.session == s {
		d.breakLocked(err)
	}
	d.mu.Unlock()
	d.wait.Wake()
}

// breakLocked abandons the connections and starts to make new ones.
func (d *Device) breakLocked(err error) {
	if !d.up {
		return
	}
	d.up, d.why = false, err.Error()
	if d.closing {
		d.offline = true
		return
	}
	d.links.Queue(d.connect)
}

// reconnect is the work of links: one attempt.
func (d *Device) reconnect() {
	if d.isOffline() {
		return
	}
	d.session.stop()
	d.session.close()
	d.wait.Until(d.quiet) // wait for calls of Submit in progress
	if err := d.attach(false); err != nil {
		d.later(err)
	}
}

// later schedules the next attempt.
func (d *Device) later(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.offline {
		return
	}
	_, d.refused = err.(refusal)
	d.why = err.Error()
	d.delay = min(max(2*d.delay, firstDelay), lastDelay)
	d.links.QueueAfter(d.connect, d.delay*3/4+time.Duration(d.env.Uint64()%uint64(d.delay/2)))
}

// attach connects, replays kept writes and releases the waiting bios. Only Open and
// the queue links call it.
func (d *Device) attach(first bool) error {
	s := newSession()
	d.mu.Lock()
	d.session = s
	offline := d.offline
	d.mu.Unlock()
	if offline {
		return errClosed
	}
	err := d.connections(s, first)
	if err == nil && !first {
		err = d.repeat(s.clients[0])
	}
	d.clock.Cancel(d.giveUp)
	if err == nil {
		err = d.resume(s, first)
	}
	if err != nil {
		s.stop()
		s.close()
	}
	return err
}

// connections makes the connections of a session, and checks that all lead to the
// same export.
func (d *Device) connections(s *session, first bool) error {
	if err := d.connection(s); err != nil {
		return err
	}
	c := s.clients[0]
	if first {
		d.limits, d.name = limitsOf(c), c.Offer().Name
		d.keeps = d.limits.VolatileCache && !d.limits.ReadOnly && !d.o.Path
		d.size, d.limits.Size = d.limits.Size, 0
	} else if err := d.accept(c); err != nil {
		return err
	}
	for c.Offer().MultiConn() && len(s.clients) < d.o.Connections {
		err := d.connection(s)
		if s.over() {
			d.o.Connections = len(s.clients) // the server does not accept more
			return err
		}
		if err != nil {
			break // the server has reached its limit
		}
		if last := s.clients[len(s.clients)-1]; last.Offer() != c.Offer() {
			return refusal("the connections are to different exports")
		}
	}
	return nil
}

// connection adds a connection to a session.
func (d *Device) connection(s *session) error {
	d.clock.QueueAfter(d.giveUp, answerTime)
	o := nbdclient.Options{Export: d.o.Export, Env: d.env, Broken: func(err error) { d.broken(s, err) }}
	if d.o.TLS != nil {
		var err error
		if o.TLS, err = d.o.TLS(); err != nil {
			return err
		}
	}
	rw, err := s.dial(d.o.Dial)
	if err != nil {
		return err
	}
	c, err := nbdclient.New(rw, o)
	switch {
	case err == nil:
		s.clients = append(s.clients, c)
	case s.over():
		err = errStopped
	case errors.Is(err, io.EOF):
		err = errors.New("the server closed the connection; check its limit of clients and its log")
	}
	return err
}

// limitsOf returns the limits of the device for a client. Bios are sent more than
// once, so their data must be stable.
func limitsOf(c *nbdclient.Client) blk.Limits {
	l := c.Limits()
	l.StableWrites = true
	l.MaxSectors = max(min(l.MaxSectors, maxWrite/blk.SectorSize), l.LogicalBlock/blk.SectorSize)
	return l
}

// accept refuses an export that differs from the one before. resume adopts a larger
// size.
func (d *Device) accept(c *nbdclient.Client) error {
	l := limitsOf(c)
	size, was := l.Size, d.Limits().Size
	l.Size = 0
	switch {
	case c.Offer().Name != d.name:
		return refusal(fmt.Sprintf("the server offers export %q instead of %q; serve the old one again", c.Offer().Name, d.name))
	case l.ReadOnly != d.limits.ReadOnly && l.ReadOnly:
		return refusal("the export has become read-only; serve it writable again")
	case l.ReadOnly != d.limits.ReadOnly:
		return refusal("the export was read-only and no longer is; serve it read-only again, or reopen it")
	case size < was:
		return refusal(fmt.Sprintf("the export has shrunk from %d to %d sectors; serve the old one again", was, size))
	case l != d.limits:
		return refusal("the export has other features or block sizes than before; serve it as before, or reopen it")
	}
	return nil
}

// repeat replays the kept writes. Writes to the same sectors are not in flight
// together.
func (d *Device) repeat(c *nbdclient.Client) error {
	d.mu.Lock()
	todo := d.kept.live() // no client has a bio, so it does not change
	d.mu.Unlock()
	for len(todo) > 0 {
		n := batch(todo)
		d.clock.QueueAfter(d.giveUp, repeatTime)
		switch st := d.write(c, todo[:n]); st {
		case blk.OK:
		case blk.Offline:
			return errLeft
		default:
			d.mu.Lock()
			d.loseLocked("the server refused to repeat a write: " + st.String())
			d.mu.Unlock()
		}
		todo = todo[n:]
	}
	return nil
}

// batch is the number of entries that may be in flight together.
func batch(todo []entry) int {
	bytes := 0
	for i := range todo {
		if bytes += len(todo[i].data); i == 64 || bytes > slabSize {
			return max(i, 1)
		}
		for j := range i {
			if todo[i].overlaps(&todo[j]) {
				return i
			}
		}
	}
	return len(todo)
}

// write waits for the writes to end. A failed discard loses nothing.
func (d *Device) write(c *nbdclient.Client, entries []entry) blk.Status {
	var worst, left atomic.Int32
	left.Store(int32(len(entries)))
	w := d.env.NewWait()
	end := func(b *blk.Bio) {
		if st := b.Status(); st == blk.Offline || st != blk.OK && b.Op != blk.Discard && worst.Load() != int32(blk.Offline) {
			worst.Store(int32(st))
		}
		left.Add(-1)
		w.Wake()
	}
	bios := make([]blk.Bio, len(entries))
	for i, e := range entries {
		b := &bios[i]
		b.SetData(e.data)
		b.Op, b.Flags, b.Sector, b.Sectors, b.End = e.op, e.flags, e.sector, e.sectors, end
		c.Submit(b)
	}
	w.Until(func() bool { return left.Load() == 0 })
	return blk.Status(worst.Load())
}

// resume passes the waiting bios to the session.
func (d *Device) resume(s *session, first bool) error {
	d.mu.Lock()
	for _, c := range s.clients {
		if err := c.Err(); err != nil {
			d.mu.Unlock()
			return err
		}
	}
	if d.offline {
		d.mu.Unlock()
		return errClosed
	}
	d.up, d.refused, d.delay = true, false, 0
	if !first {
		d.reconnects++
	}
	d.size = s.clients[0].Limits().Size
	requests := d.waiting
	d.waiting = nil
	clients := make([]*nbdclient.Client, len(requests))
	for i, r := range requests {
		clients[i] = d.sendLocked(r)
	}
	d.mu.Unlock()
	for i, r := range requests {
		clients[i].Submit(&r.below)
	}
	d.wait.Wake()
	d.checkpoint()
	return nil
}
