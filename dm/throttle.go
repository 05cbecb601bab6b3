package dm

import (
	"container/heap"
	"sync"
	"time"

	"udm/blk"
	"udm/env"
)

// Limits of I/O per second and of bytes per second. A device with limits has a chain of
// throttles in front of it, its own and that of its group; the last one submits to the
// device. The chain stands in the handles that clients open, not in Device.Submit: a
// device without limits costs one load of a pointer there and nothing on the way from
// table to table, and what targets send each other (copies, metadata) is not limited a
// second time. A bio that waits is not in flight in the device, so that a suspend or a
// new table does not wait for it; whoever has submitted it has the device open, so that
// nothing is removed under it.
//
// Reads and writes wait apart. A flush does not wait: it covers only what has ended.
// Discards and write-zeroes count as writes without bytes.
//
// Lock order: Throttle.mu is a leaf. A bio that waits is in a list through itself.

// Rates bound what a device or group may do. The zero value bounds nothing.
type Rates struct{ Read, Write Rate }

// Rate bounds one direction.
type Rate struct{ IOs, Bytes Bucket }

// Bucket is how much may pass in a second, and how much at once after a pause.
type Bucket struct {
	PerSecond uint64 // 0: no bound
	Burst     uint64 // 0: what passes in a tenth of a second, at least 1
}

// Throttle delays bios so that they keep to Rates. Its devices get equal shares of what
// they use up (start-time fair queuing): the one that has used the least goes first.
type Throttle struct {
	env   env.Env
	queue env.Queue
	work  *env.Work // tick

	mu   sync.Mutex
	dirs [2]direction // guarded by mu; reads, writes
}

// direction is what passes and what waits.
type direction struct {
	ios, bytes bucket
	waiting    lanes         // a heap
	clock      time.Duration // what the lane had used that went last
}

// bucket is a [Bucket] that has a time until which what has passed is paid for.
type bucket struct {
	Bucket
	paid time.Duration
	rest uint64 // of a nanosecond, in units of 1/PerSecond
}

// member is a device behind a throttle.
type member struct {
	throttle *Throttle
	forward  func(*blk.Bio)
	lanes    [2]lane
}

// lane is what waits of one device.
type lane struct {
	member *member
	list   blk.List
	used   time.Duration // of the direction's time
}

// NewThrottle returns a throttle that bounds nothing yet.
func NewThrottle(e env.Env) *Throttle {
	t := &Throttle{env: e, queue: e.NewQueue("dm-throttle")}
	t.work = env.NewWork(t.tick)
	return t
}

// Set changes the rates, also while bios wait. The buckets are full afterwards.
func (t *Throttle) Set(r Rates) {
	t.mu.Lock()
	for i, rate := range []Rate{r.Read, r.Write} {
		t.dirs[i].ios, t.dirs[i].bytes = bucket{Bucket: rate.IOs}, bucket{Bucket: rate.Bytes}
	}
	t.mu.Unlock()
	t.queue.Queue(t.work)
}

// Close lets pass whatever waits, and all that comes.
func (t *Throttle) Close() {
	t.Set(Rates{})
	t.queue.Close()
}

// Throttle puts throttles in front of the device, in place of those that are there;
// none: it has no limits.
func (d *Device) Throttle(ts ...*Throttle) {
	var m *member
	forward := d.Submit
	for i := len(ts) - 1; i >= 0; i-- {
		m = &member{throttle: ts[i], forward: forward}
		m.lanes[0].member, m.lanes[1].member = m, m
		forward = m.submit
	}
	d.throttle.Store(m)
}

// submit lets b pass, or wait behind what waits.
func (m *member) submit(b *blk.Bio) {
	if b.Op == blk.Flush {
		m.forward(b)
		return
	}
	t := m.throttle
	t.mu.Lock()
	d, l := t.of(m, b)
	passes := len(d.waiting) == 0 && d.delay(t.env.Now(), b) <= 0
	refused := !passes && b.Flags&blk.NoWait != 0
	switch {
	case passes:
		d.charge(t.env.Now(), b)
	case !refused:
		d.push(l, b)
	}
	t.mu.Unlock()
	switch {
	case passes:
		m.forward(b)
	case refused:
		b.Complete(blk.WouldBlock)
	default:
		t.queue.Queue(t.work)
	}
}

func (t *Throttle) of(m *member, b *blk.Bio) (*direction, *lane) {
	if b.Op.IsWrite() {
		return &t.dirs[1], &m.lanes[1]
	}
	return &t.dirs[0], &m.lanes[0]
}

func (d *direction) push(l *lane, b *blk.Bio) {
	idle := l.list.Empty()
	l.list.Push(b)
	if idle {
		l.used = max(l.used, d.clock)
		heap.Push(&d.waiting, l)
	}
}

// tick lets pass what may, and comes again when the next may.
func (t *Throttle) tick() {
	for {
		m, b, wait := t.next()
		switch {
		case b != nil:
			m.forward(b)
		case wait > 0:
			t.queue.QueueAfter(t.work, wait)
			return
		default:
			return
		}
	}
}

// next takes a bio that may pass; if there is none, it tells how long it takes until
// there is; 0: nothing waits.
func (t *Throttle) next() (m *member, b *blk.Bio, wait time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.env.Now()
	for i := range t.dirs {
		d := &t.dirs[i]
		if len(d.waiting) == 0 {
			continue
		}
		l := d.waiting[0]
		delay := d.delay(now, l.list.First())
		if delay <= 0 {
			return l.member, d.take(now, l), 0
		}
		if wait == 0 || delay < wait {
			wait = delay
		}
	}
	return nil, nil, wait
}

// take takes the first bio of the lane that is first.
func (d *direction) take(now time.Duration, l *lane) *blk.Bio {
	b := l.list.Pop()
	d.clock = l.used
	l.used += d.charge(now, b)
	if l.list.Empty() {
		heap.Pop(&d.waiting)
	} else {
		heap.Fix(&d.waiting, 0)
	}
	return b
}

// delay is how long b has to wait yet.
func (d *direction) delay(now time.Duration, b *blk.Bio) time.Duration {
	return max(d.ios.delay(now, 1), d.bytes.delay(now, bytesOf(b)))
}

// charge counts b, and returns how much of the direction's time it takes.
func (d *direction) charge(now time.Duration, b *blk.Bio) time.Duration {
	return max(d.ios.charge(now, 1), d.bytes.charge(now, bytesOf(b)))
}

func bytesOf(b *blk.Bio) uint64 {
	if !b.Op.HasData() {
		return 0
	}
	return b.Sectors * blk.SectorSize
}

// delay is the time until n may pass: until so much of the burst is free. What is more
// than a burst passes when all of it is.
func (k *bucket) delay(now time.Duration, n uint64) time.Duration {
	if k.PerSecond == 0 || n == 0 || k.paid <= now {
		return 0
	}
	burst := k.burst()
	return k.paid - now - k.span(burst-min(n, burst))
}

func (k *bucket) charge(now time.Duration, n uint64) time.Duration {
	if k.PerSecond == 0 {
		return 0
	}
	if k.paid < now {
		k.paid, k.rest = now, 0
	}
	all := n*uint64(time.Second) + k.rest
	took := time.Duration(all / k.PerSecond)
	k.paid, k.rest = k.paid+took, all%k.PerSecond
	return took
}

func (k *bucket) burst() uint64 {
	if k.Burst > 0 {
		return k.Burst
	}
	return max(1, k.PerSecond/10)
}

// span is the time in which n pass.
func (k *bucket) span(n uint64) time.Duration {
	return time.Duration(float64(n) / float64(k.PerSecond) * float64(time.Second))
}

// lanes is a heap of lanes with bios, by what they have used.
type lanes []*lane

func (h lanes) Len() int           { return len(h) }
func (h lanes) Less(i, j int) bool { return h[i].used < h[j].used }
func (h lanes) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *lanes) Push(x any)        { *h = append(*h, x.(*lane)) }

func (h *lanes) Pop() any {
	last := len(*h) - 1
	l := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	return l
}
