package filedev

import (
	"runtime"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"udm/blk"
	"udm/internal/uring"
)

// ringSegments is the maximum number of buffers of one transfer.
const ringSegments = 16

// ring performs reads and plain writes by io_uring, on a goroutine of its own. It is
// a fast path: a bio for which there is no slot goes to the pool, and a transfer that
// does not succeed completely is repeated by the pool, whose code handles failures.
// (A FUA write must not be repeated: its error may be the only report of a lost
// write.)
//
//	bio ──► take ──► list ──► slot ──► kernel ──► End
//	 alone, or  │                   short, failed │
//	 no slot    └──────────► pool ◄───────────────┘
//
// A bio that is alone goes to the pool unless an End has submitted it, or seems to have: then
// the ring's goroutine submits each and ends it, without a hand-over.
//
// A slot is free again before End runs, and nobody waits for a slot, so an End may
// submit to the same device.
type ring struct {
	d     *Device
	fd    int
	limit int32
	taken atomic.Int32 // slots in use or promised
	begin sync.Once
	ended chan struct{} // closed when the goroutine has ended
	waker *uring.Waker

	// For tests: with always, a bio that is alone is taken as well; fault may shorten v,
	// and its error replaces the result.
	always bool
	fault  func(b *blk.Bio, v *[]unix.Iovec) unix.Errno

	mu   sync.Mutex
	list blk.List // guarded by mu
	off  bool     // guarded by mu: closed, or not available

	u     *uring.Ring // this and what follows is the goroutine's
	slots []slot
	free  []uint16
}

// slot is a transfer in the kernel.
type slot struct {
	bio *blk.Bio
	err unix.Errno
	v   [ringSegments]unix.Iovec
}

const wakeUp = ^uint64(0) // user data of the waker

// burst is how many transfers are submitted or ended at a time. The kernel holds back more than two
// until the last one is submitted, and the disk waits meanwhile.
const burst = 2

// newRing returns a ring of some slots. It starts with the first transfer.
func newRing(d *Device, slots int) (*ring, error) {
	f, ok := d.f.(*osFile)
	if !ok || slots < 0 {
		return nil, nil
	}
	w, err := uring.NewWaker()
	if err != nil {
		return nil, err
	}
	w.Sleep() // until it begins
	return &ring{d: d, fd: f.fd, limit: int32(orDefault(slots, 127)), ended: make(chan struct{}), waker: w}, nil
}

// take takes b if the ring can perform it.
func (r *ring) take(b *blk.Bio) bool {
	if r == nil || !b.Op.HasData() || b.Flags&(blk.FUA|blk.Preflush) != 0 || !r.d.fits(b) {
		return false
	}
	if r.taken.Load() == 0 && !r.always && r.waker.Asleep() && r.d.pool.idle() {
		return false // a worker does it with one hand-over less
	}
	if r.taken.Add(1) > r.limit {
		r.taken.Add(-1)
		return false
	}
	r.begin.Do(func() { go r.run() })
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.off {
		r.taken.Add(-1)
		return false
	}
	r.list.Push(b)
	r.waker.Wake()
	return true
}

// fits reports whether b has few buffers that the file can transfer as they are.
func (d *Device) fits(b *blk.Bio) bool {
	n := 0
	for p := range b.Segments() {
		n++
		if n > ringSegments || d.align != 0 && (address(p)|uint64(len(p)))%d.align != 0 {
			return false
		}
	}
	return n > 0
}

func (r *ring) run() {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer close(r.ended)
	if err := r.open(); err != nil {
		r.refuse()
		return
	}
	defer r.u.Close()
	for more := false; r.start(); more = r.reap() {
		if more {
			r.enter(0)
		} else {
			r.enter(1)
		}
		r.waker.Awake()
	}
}

// enter submits what is prepared, and waits for some transfers to end.
func (r *ring) enter(wait int) {
	if err := r.u.Enter(wait); err != nil {
		panic("filedev: " + err.Error()) // the kernel still owns the buffers, so no bio may end
	}
}

func (r *ring) open() (err error) {
	r.u, err = uring.New(uring.Options{Entries: int(r.limit) + 1}) // one for the waker
	if err != nil {
		return err
	}
	r.slots = make([]slot, r.limit)
	for i := range r.slots {
		r.free = append(r.free, uint16(i))
	}
	r.listen()
	return nil
}

func (r *ring) listen() {
	e := r.u.Entry()
	r.waker.Listen(e)
	e.User = wakeUp
}

// refuse passes waiting bios, and all later ones, to the pool.
func (r *ring) refuse() {
	r.mu.Lock()
	r.off = true
	left := r.list.Take()
	r.mu.Unlock()
	for b := left.Pop(); b != nil; b = left.Pop() {
		r.taken.Add(-1)
		r.d.pool.again(b)
	}
}

// start submits the bios taken, but for the last ones, which are only prepared. It returns false
// once everything has ended.
func (r *ring) start() bool {
	r.waker.Sleep()
	r.mu.Lock()
	list, off := r.list.Take(), r.off
	r.mu.Unlock()
	for n := 1; !list.Empty(); n++ {
		if r.prepare(list.Pop()); n%burst == 0 && !list.Empty() {
			r.enter(0)
		}
	}
	return !off || len(r.free) < len(r.slots)
}

func (r *ring) prepare(b *blk.Bio) {
	i := r.free[len(r.free)-1]
	r.free = r.free[:len(r.free)-1]
	s := &r.slots[i]
	s.bio, s.err = b, 0
	v := s.vector(b)
	if r.fault != nil {
		s.err = r.fault(b, &v)
	}
	e := r.u.Entry() // there is one for each slot
	e.User = uint64(i)
	off := int64(b.Sector) << blk.SectorShift
	if b.Op == blk.Read {
		e.Readv(r.fd, v, off)
	} else {
		e.Writev(r.fd, v, off)
	}
}

// vector returns the data of b. The kernel copies the vector when the entry is
// submitted.
func (s *slot) vector(b *blk.Bio) []unix.Iovec {
	n := 0
	for p := range b.Segments() {
		s.v[n].Base = &p[0]
		s.v[n].SetLen(len(p))
		n++
	}
	return s.v[:n]
}

// reap ends completed transfers, a burst at most, so that what their ends submit follows at once.
// It reports whether there may be more.
func (r *ring) reap() (more bool) {
	for range burst {
		c, ok := r.u.Next()
		switch {
		case !ok:
			return false
		case c.User != wakeUp:
			r.completed(c)
		case !c.More():
			r.listen()
		}
	}
	return true
}

func (r *ring) completed(c uring.Completion) {
	s := &r.slots[c.User]
	b := s.bio
	whole := c.Result >= 0 && uint64(c.Result) == b.Bytes() && s.err == 0
	s.bio = nil
	clear(s.v[:])
	r.free = append(r.free, uint16(c.User))
	r.taken.Add(-1)
	if !whole {
		r.d.pool.again(b)
		return
	}
	b.Complete(blk.OK)
}

// close waits until everything has ended.
func (r *ring) close() {
	if r == nil {
		return
	}
	r.begin.Do(func() { close(r.ended) }) // or it has begun
	r.mu.Lock()
	r.off = true
	r.waker.Wake()
	r.mu.Unlock()
	<-r.ended
	r.waker.Close()
}
