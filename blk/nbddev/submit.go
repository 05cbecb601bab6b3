package nbddev

import (
	"errors"
	"slices"
	"time"

	"udm/blk"
	"udm/blk/nbdclient"
)

// Submit implements [blk.Device].
func (d *Device) Submit(b *blk.Bio) {
	if b.Op != blk.Flush && b.Sectors == 0 {
		b.Complete(blk.OK)
		return
	}
	r, c, st := d.admit(b)
	if st == blk.WouldBlock && b.Flags&blk.NoWait == 0 {
		r, c, st = d.admitLater(b)
	}
	switch {
	case st != blk.OK:
		b.Complete(st)
	case c != nil:
		c.Submit(&r.below)
	}
}

// admitLater waits until the bio can be admitted or times out.
func (d *Device) admitLater(b *blk.Bio) (r *request, c *nbdclient.Client, st blk.Status) {
	since := d.env.Now()
	d.block(1)
	d.wait.Until(func() bool {
		if r, c, st = d.admit(b); st == blk.WouldBlock && d.over(since) {
			st = blk.Timeout
		}
		return st != blk.WouldBlock
	})
	d.block(-1)
	return r, c, st
}

// block changes the number of waiting submitters.
func (d *Device) block(n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.blocked += n
	d.armLocked()
}

// armLocked makes lookAtTimes run as long as something can time out.
func (d *Device) armLocked() {
	if d.o.Timeout > 0 && !d.ticking && (len(d.idle) < Depth || d.blocked > 0 || d.flushing) {
		d.ticking = true
		d.clock.QueueAfter(d.tick, d.o.Timeout/4)
	}
}

// admit makes a request of a bio. It waits for a connection, or is to be sent to the
// returned client. WouldBlock: there is no room now.
func (d *Device) admit(b *blk.Bio) (*request, *nbdclient.Client, blk.Status) {
	d.mu.Lock()
	defer d.mu.Unlock()
	room := 0
	if d.keeps {
		room = cost(b)
	}
	switch {
	case d.closing, d.o.Path && !d.up:
		return nil, nil, blk.Offline
	case !d.up && b.Flags&blk.NoWait != 0, len(d.idle) == 0, !d.kept.reserve(room):
		return nil, nil, blk.WouldBlock
	}
	r := d.idle[len(d.idle)-1]
	d.idle = d.idle[:len(d.idle)-1]
	r.bio, r.room, r.upTo, r.since = b, room, d.kept.last, d.env.Now()
	d.armLocked()
	if !d.up {
		d.waiting = append(d.waiting, r)
		return r, nil, blk.OK
	}
	return r, d.sendLocked(r), blk.OK
}

// sendLocked prepares the request for the client that it returns.
func (d *Device) sendLocked(r *request) *nbdclient.Client {
	r.below.CloneFrom(r.bio)
	r.below.Flags &^= blk.NoWait
	r.below.End, r.below.Private = answered, r
	r.sent = true
	d.sent++
	d.next++
	return d.session.clients[d.next%len(d.session.clients)]
}

var errLeft = errors.New("the server is shutting down")

// answered is the End of a bio at a client. Offline means that there was no answer.
func answered(below *blk.Bio) {
	r := below.Private.(*request)
	r.d.answer(r, below.Status())
}

func (d *Device) answer(r *request, st blk.Status) {
	d.mu.Lock()
	d.sent--
	r.sent = false
	if st == blk.Offline {
		d.breakLocked(errLeft)
	}
	switch {
	case st == blk.Offline && d.expired(r):
		d.endLocked(r, blk.Timeout)
	case st == blk.Offline && !d.closing && !d.o.Path:
		d.waiting = append(d.waiting, r)
	default:
		d.endLocked(r, st)
	}
	d.mu.Unlock()
	d.wait.Wake()
	d.checkpoint()
}

// endLocked ends the bio of a request and frees the request.
func (d *Device) endLocked(r *request, st blk.Status) {
	b := r.bio
	d.kept.release(r.room)
	switch {
	case st != blk.OK:
	case b.Op == blk.Flush:
		d.kept.trim(r.upTo)
		if d.lost {
			d.lost, st = false, blk.IOErr
		}
	case r.room > 0:
		d.kept.add(b)
	case d.keeps && b.Flags&blk.FUA != 0 && len(d.kept.live()) > 0:
		d.kept.supersede(b)
	}
	b.SetStatus(st)
	r.bio = nil
	d.idle = append(d.idle, r)
	d.ended.Push(b)
	d.ends.Queue(d.deliver)
}

// deliverEnded runs the End of ended bios.
func (d *Device) deliverEnded() {
	for {
		d.mu.Lock()
		b := d.ended.Pop()
		d.mu.Unlock()
		if b == nil {
			return
		}
		b.Complete(blk.OK) // its status has been set
	}
}

// checkpoint flushes when the buffer is half full. Users see a failure in their next
// flush.
func (d *Device) checkpoint() {
	d.mu.Lock()
	if !d.up || d.closing || d.flushing || d.kept.used < d.kept.limit/2 {
		d.mu.Unlock()
		return
	}
	d.flushing, d.flushUpTo, d.flushSince = true, d.kept.last, d.env.Now()
	d.armLocked()
	d.sent++
	d.flush.Reset()
	d.flush.Op, d.flush.End = blk.Flush, d.checkpointed
	c := d.session.clients[0]
	d.mu.Unlock()
	c.Submit(&d.flush)
}

func (d *Device) checkpointed(b *blk.Bio) {
	d.mu.Lock()
	d.flushing = false
	d.sent--
	switch st := b.Status(); st {
	case blk.Offline:
		d.breakLocked(errLeft)
	case blk.OK:
		d.kept.trim(d.flushUpTo)
	default:
		d.loseLocked("a flush failed: " + st.String())
		d.kept.trim(d.flushUpTo)
	}
	d.mu.Unlock()
	d.wait.Wake()
	d.checkpoint()
}

// loseLocked makes the user's next flush fail.
func (d *Device) loseLocked(why string) { d.lost, d.why = true, why }

// over reports whether something that began at since has timed out.
func (d *Device) over(since time.Duration) bool {
	return d.o.Timeout > 0 && d.env.Now()-since >= d.o.Timeout
}

func (d *Device) expired(r *request) bool { return d.over(r.since) }

// lookAtTimes ends bios that have timed out, and disconnects from a server that does
// not answer.
func (d *Device) lookAtTimes() {
	d.mu.Lock()
	late := d.flushing && d.over(d.flushSince)
	for i := range d.slots {
		late = late || d.slots[i].sent && d.expired(&d.slots[i])
	}
	d.waiting = slices.DeleteFunc(d.waiting, func(r *request) bool {
		expired := d.expired(r)
		if expired {
			d.endLocked(r, blk.Timeout)
		}
		return expired
	})
	d.ticking = false
	d.armLocked()
	if late {
		d.breakLocked(errStopped)
	}
	s := d.session
	d.mu.Unlock()
	d.wait.Wake()
	if late {
		s.stop()
	}
}
