package rbddev

import (
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"udm/blk"
	"udm/env"
)

// Depth is the maximum number of bios in flight, and batch that of those fetched at once.
const (
	Depth = 128
	batch = 64
)

const (
	checkTime = 10 * time.Second // between looks at the lock
	patience  = 5 * time.Second  // for an answer, before Report says that there is none
)

// image is an open image: librbd's, or a test's.
type image interface {
	// limits are the image's, with its current size.
	limits() blk.Limits
	// start starts the I/O of a bio without blocking. A negative result is an errno, and
	// the I/O has not been started.
	start(slot int, b *blk.Bio) int64
	// reap waits for I/O that has ended and says what; the image no longer has its
	// memory. 0: stop was called.
	reap([]ended) int
	stop()
	// watch makes the image call changed when its size may have changed.
	watch(changed func()) error
	size() (sectors uint64, err error)
	// check returns an error if the lock is not this client's. It may take long.
	check() error
	extents(sector, sectors uint64) ([]blk.Extent, error)
	// close follows stop, when nothing is under way.
	close() error
}

// ended is I/O that has ended.
type ended struct {
	slot   int
	result int64 // bytes read, or a negative errno
}

// Device is an image as a device.
type Device struct {
	env    env.Env
	o      Options
	img    image
	limits blk.Limits // without Size
	size   atomic.Uint64
	room   env.Wait // woken when a bio may be admitted

	reaps, ends, looks     env.Queue
	deliver, look, resized *env.Work

	mu      sync.Mutex
	slots   [Depth]slot
	idle    []int    // guarded by mu; free slots
	asking  int      // guarded by mu; calls of Extents
	ended   blk.List // guarded by mu; for deliver
	state   string   // guarded by mu; why every bio ends with Offline; "": none does
	why     string   // guarded by mu; the same in words
	closing bool     // guarded by mu
}

// slot is a bio in flight.
type slot struct {
	bio   *blk.Bio      // guarded by Device.mu
	since time.Duration // guarded by Device.mu; when it was submitted
	bytes int64         // to be read
}

// Find returns the identity of an image.
func Find(o Options) (Identity, error) { return find(o) }

// Open opens the image that Find has found. It waits 30 s at most for each answer of the
// cluster.
func Open(e env.Env, o Options, id Identity, write bool) (*Device, error) {
	if write && o.Snap != "" {
		return nil, &Error{"a snapshot is read-only; use it as an origin, or clone it in the cluster: rbd clone", syscall.EACCES}
	}
	img, err := open(o, id, write)
	if err != nil {
		return nil, err
	}
	return newDevice(e, o, img)
}

func newDevice(e env.Env, o Options, img image) (*Device, error) {
	d := &Device{env: e, o: o, img: img, limits: img.limits(), room: e.NewWait()}
	d.reaps, d.ends, d.looks = e.NewQueue("rbd reap"), e.NewQueue("rbd ends"), e.NewQueue("rbd looks")
	d.deliver, d.look, d.resized = env.NewWork(d.deliverEnded), env.NewWork(d.lookAtLock), env.NewWork(d.readSize)
	d.size.Store(d.limits.Size)
	d.limits.Size = 0
	for i := range d.slots {
		d.idle = append(d.idle, i)
	}
	d.reaps.Queue(env.NewWork(d.reap))
	if !d.limits.ReadOnly {
		d.looks.QueueAfter(d.look, checkTime)
	}
	if err := img.watch(func() { d.looks.Queue(d.resized) }); err != nil {
		d.Close()
		return nil, err
	}
	return d, nil
}

// Limits implements [blk.Device].
func (d *Device) Limits() blk.Limits {
	l := d.limits
	l.Size = d.size.Load()
	return l
}

func (d *Device) String() string { return d.o.Name }

// Submit implements [blk.Device].
func (d *Device) Submit(b *blk.Bio) {
	n, st := d.admit(b)
	if st == blk.WouldBlock && b.Flags&blk.NoWait == 0 {
		d.room.Until(func() bool {
			n, st = d.admit(b)
			return st != blk.WouldBlock
		})
	}
	if st != blk.OK || b.Op != blk.Flush && b.Sectors == 0 {
		b.Complete(st)
		return
	}
	if r := d.img.start(n, b); r < 0 {
		d.end([]ended{{n, r}})
	}
}

// admit gives a bio a slot, unless it has no sectors.
func (d *Device) admit(b *blk.Bio) (n int, st blk.Status) {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.closing || d.state != "":
		return 0, blk.Offline
	case b.Op.IsWrite() && b.Op != blk.Flush && d.limits.ReadOnly:
		return 0, blk.ReadOnly
	case b.Op != blk.Flush && b.Sectors == 0:
		return 0, blk.OK
	case b.Flags&blk.NoUnmap != 0 && b.Flags&blk.FastZero != 0:
		return 0, blk.NotSupported // the OSDs write the zeroes
	case len(d.idle) == 0:
		return 0, blk.WouldBlock
	}
	n = d.idle[len(d.idle)-1]
	d.idle = d.idle[:len(d.idle)-1]
	s := &d.slots[n]
	s.bio, s.since, s.bytes = b, d.env.Now(), 0
	if b.Op == blk.Read {
		s.bytes = int64(b.Bytes())
	}
	return n, blk.OK
}

// reap is the only work of reaps, until Close.
func (d *Device) reap() {
	var list [batch]ended
	for {
		n := d.img.reap(list[:])
		if n == 0 {
			return
		}
		d.end(list[:n])
	}
}

// end frees the slots and has the bios ended.
func (d *Device) end(list []ended) {
	d.mu.Lock()
	for _, e := range list {
		s := &d.slots[e.slot]
		s.bio.SetStatus(d.statusLocked(s, e.result))
		d.ended.Push(s.bio)
		s.bio = nil
		d.idle = append(d.idle, e.slot)
	}
	d.mu.Unlock()
	d.ends.Queue(d.deliver)
	d.room.Wake()
}

// statusLocked is the status for a result. The errors that tell that the image is another
// client's now take the device offline.
func (d *Device) statusLocked(s *slot, result int64) blk.Status {
	switch {
	case result >= 0 && result >= s.bytes:
		return blk.OK
	case result >= 0:
		return blk.Invalid // the image has become shorter
	case syscall.Errno(-result) == syscall.EDQUOT:
		return blk.NoSpace
	case d.lostLocked(syscall.Errno(-result)):
		return blk.Offline
	}
	return blk.StatusOf(syscall.Errno(-result))
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

// Close implements [blk.Device].
func (d *Device) Close() error {
	d.mu.Lock()
	d.closing = true
	d.mu.Unlock()
	d.room.Until(d.quiet)
	d.looks.Close()
	d.img.stop()
	d.reaps.Close()
	d.ends.Close()
	err := d.img.close()
	if d.mu.Lock(); d.state != "" {
		err = nil // there is nothing to be told any more
	}
	d.mu.Unlock()
	if err != nil {
		return fmt.Errorf("%s: %w", d.o.Name, err)
	}
	return nil
}

// quiet reports whether librbd has nothing of this device.
func (d *Device) quiet() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.idle) == Depth && d.asking == 0
}
