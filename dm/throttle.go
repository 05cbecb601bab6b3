package dm

import (
	"container/heap"
	"sync"
	"time"

	"udm/blk"
	"udm/env"
)

// Limits of I/Os and bytes per second. A device with limits has a chain of throttles, its
// own and that of its group, of which the last submits to the device. The chain belongs to
// the handles that clients open, not to Device.Submit. So a device without limits costs one
// load of a pointer in the handle and nothing between stacked devices, and I/O that targets
// create (copies, metadata) is not limited a second time. A waiting bio is not in flight in
// the device, so a suspend or a new table does not wait for it. Its submitter has the device
// open, so the device cannot be removed meanwhile.
//
// Reads and writes wait in separate queues. A flush does not wait: it only covers completed
// writes. Discards and write-zeroes count as writes without bytes. A barrier waits until all
// that its device has waiting has passed, and what comes after it waits for it.
//
// Lock order: Throttle.mu is a leaf.

// Rates are the limits of a device or group. The zero value means no limits.
type Rates struct{ Read, Write Rate }

// Rate is the limit of one direction.
type Rate struct{ IOs, Bytes Bucket }

// Bucket is a token bucket.
type Bucket struct {
	PerSecond uint64 // 0 for no limit
	Burst     uint64 // the most that passes at once; 0 for PerSecond/10, at least 1
}

// Throttle delays bios to keep them within Rates. Its devices get equal shares (start-time
// fair queuing): the one that has used the least goes first.
type Throttle struct {
	env   env.Env
	queue env.Queue
	work  *env.Work // tick

	mu   sync.Mutex
	dirs [2]direction // guarded by mu; reads, writes
}

// direction is the state of reads or writes.
type direction struct {
	ios, bytes bucket
	waiting    lanes         // a heap
	clock      time.Duration // virtual time: used of the lane that was served last
}

// bucket is the state of a token bucket.
type bucket struct {
	Bucket
	paid time.Duration // the time when all that has passed is paid for at the given rate
	rest uint64        // fraction of a nanosecond in paid, in units of 1/PerSecond
}

// member is a device that a throttle limits.
type member struct {
	throttle *Throttle
	forward  func(*blk.Bio)
	lanes    [2]lane
	waiting  int      // guarded by Throttle.mu; bios in lanes, or on their way from there
	barrier  bool     // guarded by Throttle.mu; one of them is a barrier, the last of them
	behind   blk.List // guarded by Throttle.mu; bios that wait for a barrier, or are one
}

// lane is the queue of waiting bios of a device in one direction.
type lane struct {
	member *member
	list   blk.List
	used   time.Duration // virtual time: the sum of charges
}

// NewThrottle returns a throttle without limits.
func NewThrottle(e env.Env) *Throttle {
	t := &Throttle{env: e, queue: e.NewQueue("dm-throttle")}
	t.work = env.NewWork(t.tick)
	return t
}

// Set changes the rates, also while bios wait, and fills the buckets.
func (t *Throttle) Set(r Rates) {
	t.mu.Lock()
	for i, rate := range []Rate{r.Read, r.Write} {
		t.dirs[i].ios, t.dirs[i].bytes = bucket{Bucket: rate.IOs}, bucket{Bucket: rate.Bytes}
	}
	t.mu.Unlock()
	t.queue.Queue(t.work)
}

// Close removes all limits and waits until all waiting bios have passed.
func (t *Throttle) Close() {
	t.Set(Rates{})
	t.queue.Close()
}

// Throttle replaces the throttles of the device. Bios pass them in the given order. Without
// arguments the device has no limits.
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

// submit forwards b, or queues it after the bios that already wait.
func (m *member) submit(b *blk.Bio) {
	t := m.throttle
	t.mu.Lock()
	passes := m.passesLocked(b)
	refused := !passes && b.Flags&blk.NoWait != 0
	if !passes && !refused {
		m.behind.Push(b)
		m.admitLocked()
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

// passesLocked reports whether b need not wait, and charges it then.
func (m *member) passesLocked(b *blk.Bio) bool {
	if m.barrier || !m.behind.Empty() || isBarrier(b) && m.waiting > 0 {
		return false
	}
	d, _ := m.throttle.of(m, b)
	now := m.throttle.env.Now()
	if b.Op != blk.Flush && (len(d.waiting) > 0 || d.delay(now, b) > 0) {
		return false
	}
	d.charge(now, b)
	return true
}

func isBarrier(b *blk.Bio) bool { return b.Flags&blk.Barrier != 0 }

// admitLocked queues what need not wait for a barrier any more.
func (m *member) admitLocked() {
	for !m.barrier && !m.behind.Empty() && !(isBarrier(m.behind.First()) && m.waiting > 0) {
		b := m.behind.Pop()
		m.waiting++
		m.barrier = isBarrier(b)
		d, l := m.throttle.of(m, b)
		d.push(l, b)
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

// tick forwards the bios that may pass, and schedules itself for the next one.
func (t *Throttle) tick() {
	for {
		m, b, wait := t.next()
		switch {
		case b != nil:
			barrier := isBarrier(b)
			m.forward(b)
			m.passed(barrier)
		case wait > 0:
			t.queue.QueueAfter(t.work, wait)
			return
		default:
			return
		}
	}
}

// passed notes that a bio that has waited is in the device.
func (m *member) passed(barrier bool) {
	m.throttle.mu.Lock()
	defer m.throttle.mu.Unlock()
	m.waiting--
	m.barrier = m.barrier && !barrier
	m.admitLocked()
}

// next removes and returns a bio that may pass. If there is none, it returns the time until
// one may pass, or 0 if no bio waits.
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

// take removes and charges the first bio of l, the first lane of the heap.
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

// delay returns how long b must still wait.
func (d *direction) delay(now time.Duration, b *blk.Bio) time.Duration {
	if b.Op == blk.Flush {
		return 0
	}
	return max(d.ios.delay(now, 1), d.bytes.delay(now, bytesOf(b)))
}

// charge charges b to the buckets, and returns the time that it takes at the given rates.
func (d *direction) charge(now time.Duration, b *blk.Bio) time.Duration {
	if b.Op == blk.Flush {
		return 0
	}
	return max(d.ios.charge(now, 1), d.bytes.charge(now, bytesOf(b)))
}

func bytesOf(b *blk.Bio) uint64 {
	if !b.Op.HasData() {
		return 0
	}
	return b.Sectors * blk.SectorSize
}

// delay returns the time until n may pass, which is when n of the burst are available. If n
// is larger than the burst, it passes when the whole burst is available.
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

// span returns the time that n take at the bucket's rate.
func (k *bucket) span(n uint64) time.Duration {
	return time.Duration(float64(n) / float64(k.PerSecond) * float64(time.Second))
}

// lanes is a heap of lanes with waiting bios, ordered by used.
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
