package rbddev

import (
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"udm/blk"
	"udm/blk/blktest"
	"udm/blk/memdev"
	"udm/env"
)

// fake is an image without a cluster: a disk whose I/O ends on goroutines of its own.
type fake struct {
	disk    *memdev.Device
	l       blk.Limits
	changed func()

	mu    sync.Mutex
	cond  sync.Cond
	ended []ended        // guarded by mu
	held  []func()       // guarded by mu; ends that hold waits with
	hold  bool           // guarded by mu
	fails syscall.Errno  // guarded by mu; of what begins
	lock  syscall.Errno  // guarded by mu; what check finds
	over  bool           // guarded by mu
	short atomic.Int64   // bytes that a read lacks
	under sync.WaitGroup // I/O
}

func newFake(sectors uint64) *fake {
	f := &fake{disk: memdev.New(sectors), l: blk.DefaultLimits(sectors)}
	f.l.NoWait, f.l.MaxSectors = true, 64
	f.l.MaxDiscard, f.l.DiscardGranularity, f.l.MaxWriteZeroes = 512, 4096, 512
	f.cond.L = &f.mu
	return f
}

func (f *fake) device(t *testing.T, e env.Env) *Device {
	d, err := newDevice(e, Options{Name: "rbd:pool/image"}, f)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func (f *fake) limits() blk.Limits { return f.l }

func (f *fake) start(slot int, b *blk.Bio) int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	below := &blk.Bio{}
	below.CloneFrom(b)
	below.Flags &^= blk.NoWait
	fails := f.fails
	below.End = func(below *blk.Bio) {
		n := int64(0)
		switch {
		case below.Status() != blk.OK:
			n = -int64(below.Status().Errno())
		case b.Op == blk.Read:
			n = int64(b.Bytes()) - f.short.Load()
		}
		if fails != 0 {
			n = -int64(fails)
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		f.ended = append(f.ended, ended{slot, n})
		f.cond.Broadcast()
	}
	run := func() { f.under.Go(func() { f.disk.Submit(below) }) }
	if f.hold {
		f.held = append(f.held, run)
		f.cond.Broadcast()
		return 0
	}
	run()
	return 0
}

// release ends what is held, and lets later requests through.
func (f *fake) release() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.hold = false
	for _, run := range f.held {
		run()
	}
	f.held = nil
}

// waitHeld waits until so much I/O is held.
func (f *fake) waitHeld(n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for len(f.held) < n {
		f.cond.Wait()
	}
}

func (f *fake) set(do func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	do()
}

func (f *fake) reap(list []ended) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	for len(f.ended) == 0 && !f.over {
		f.cond.Wait()
	}
	n := copy(list, f.ended)
	f.ended = f.ended[n:]
	return n
}

func (f *fake) stop() {
	f.set(func() { f.over = true })
	f.cond.Broadcast()
}

func (f *fake) watch(changed func()) error { f.changed = changed; return nil }

func (f *fake) size() (uint64, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.l.Size, nil
}

func (f *fake) check() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.lock != 0 {
		return &Error{"check", f.lock}
	}
	return nil
}

func (f *fake) extents(sector, sectors uint64) ([]blk.Extent, error) {
	return blk.AllData(sector, sectors), nil
}

func (f *fake) close() error {
	f.under.Wait()
	return nil
}

func TestConformance(t *testing.T) {
	blktest.TestDevice(t, func(t *testing.T) blk.Device { return newFake(4096).device(t, env.Real()) })
}

// bios are bios that wait for their ends.
type bios struct {
	list  []blk.Bio
	under sync.WaitGroup
}

func newBios(n int, op blk.Op) *bios {
	bs := &bios{list: make([]blk.Bio, n)}
	for i := range bs.list {
		b := &bs.list[i]
		b.Op, b.Sector = op, uint64(i)
		if b.SetData(make([]byte, blk.SectorSize)); op == blk.Flush {
			b.Sector, b.Sectors = 0, 0
		}
		b.End = func(*blk.Bio) { bs.under.Done() }
	}
	return bs
}

func (bs *bios) submit(d blk.Device) {
	bs.under.Add(len(bs.list))
	for i := range bs.list {
		d.Submit(&bs.list[i])
	}
}

// wait waits for all, which end with st.
func (bs *bios) wait(t *testing.T, st blk.Status) {
	t.Helper()
	bs.under.Wait()
	for i := range bs.list {
		if got := bs.list[i].Status(); got != st {
			t.Errorf("%v: %v, want %v", &bs.list[i], got, st)
		}
	}
}

// With all slots taken, a bio that may not wait is told so, another one waits, and an End
// that submits does not stand in its own way.
func TestBounded(t *testing.T) {
	blktest.Leaks(t)
	f := newFake(1024)
	f.hold = true
	d := f.device(t, env.Real())
	first, second, next := newBios(Depth, blk.Write), newBios(2*Depth, blk.Read), newBios(2*Depth, blk.Read)
	end := first.list[0].End
	first.list[0].End = func(b *blk.Bio) { next.submit(d); end(b) }
	first.submit(d)
	hasty := newBios(1, blk.Read)
	hasty.list[0].Flags = blk.NoWait
	hasty.submit(d)
	hasty.wait(t, blk.WouldBlock)
	var all sync.WaitGroup
	all.Go(func() { second.submit(d) })
	f.waitHeld(Depth)
	if r := d.Report(); r.UnderWay != Depth {
		t.Errorf("%+v", r)
	}
	f.release()
	all.Wait()
	first.wait(t, blk.OK)
	second.wait(t, blk.OK)
	next.wait(t, blk.OK)
	if err := d.Close(); err != nil {
		t.Error(err)
	}
}

// What tells that the image is another client's takes the device offline for good.
func TestOfflineForGood(t *testing.T) {
	for errno, state := range map[syscall.Errno]string{syscall.ESHUTDOWN: "blocklisted", syscall.EROFS: "lock lost"} {
		t.Run(state, func(t *testing.T) {
			blktest.Leaks(t)
			f := newFake(1024)
			d := f.device(t, env.Real())
			f.set(func() { f.hold, f.fails = true, errno })
			full, waiting := newBios(Depth, blk.Write), newBios(1, blk.Write)
			full.submit(d)
			var all sync.WaitGroup
			all.Go(func() { waiting.submit(d) })
			f.release()
			full.wait(t, blk.Offline)
			all.Wait()
			waiting.wait(t, blk.Offline)
			f.set(func() { f.fails = 0 }) // as if the cluster had forgotten
			for _, op := range []blk.Op{blk.Read, blk.Write, blk.Flush, blk.Discard, blk.WriteZeroes} {
				bs := newBios(1, op)
				bs.submit(d)
				bs.wait(t, blk.Offline)
			}
			if r := d.Report(); r.State != state || r.Why == "" || r.Connections != 0 {
				t.Errorf("%+v", r)
			}
			if _, err := d.Extents(0, 8); !errors.Is(err, blk.Offline) {
				t.Errorf("extents: %v", err)
			}
			if err := d.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

// A device without I/O finds out by itself; a lock that cannot be looked at now is no loss.
func TestOfflineWithoutIO(t *testing.T) {
	for errno, state := range map[syscall.Errno]string{
		syscall.ESHUTDOWN: "blocklisted", syscall.EROFS: "lock lost", syscall.ETIMEDOUT: "connected", 0: "connected",
	} {
		e := &clock{Env: env.Real()}
		f := newFake(1024)
		d := f.device(t, e)
		f.set(func() { f.lock = errno })
		d.looks.Queue(d.look)
		d.looks.Flush()
		if r := d.Report(); r.State != state {
			t.Errorf("%v: %+v", errno, r)
		}
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	}
}

// clock is an environment whose time the test sets.
type clock struct {
	env.Env
	now atomic.Int64
}

func (c *clock) Now() time.Duration { return time.Duration(c.now.Load()) }

// OSDs that do not answer are reported; requests wait for them.
func TestWaiting(t *testing.T) {
	e := &clock{Env: env.Real()}
	f := newFake(1024)
	d := f.device(t, e)
	f.set(func() { f.hold = true })
	bs := newBios(2, blk.Write)
	bs.submit(d)
	if r := d.Report(); r.State != "connected" || r.UnderWay != 2 {
		t.Errorf("%+v", r)
	}
	e.now.Store(int64(patience + 2*time.Second))
	if r := d.Report(); r.State != "waiting" || !strings.Contains(r.Why, "no answer for 7s") {
		t.Errorf("%+v", r)
	}
	f.release()
	bs.wait(t, blk.OK)
	if r := d.Report(); r.State != "connected" || r.Why != "" {
		t.Errorf("%+v", r)
	}
	d.Close()
}

// Errors of the cluster that are no loss of the image are those of one bio.
func TestErrors(t *testing.T) {
	f := newFake(1024)
	d := f.device(t, env.Real())
	defer d.Close()
	for errno, st := range map[syscall.Errno]blk.Status{
		syscall.ENOSPC: blk.NoSpace, syscall.EDQUOT: blk.NoSpace, syscall.ETIMEDOUT: blk.Timeout, syscall.EIO: blk.IOErr, syscall.ENOENT: blk.IOErr,
	} {
		f.set(func() { f.fails = errno })
		bs := newBios(1, blk.Write)
		bs.submit(d)
		bs.wait(t, st)
	}
	f.set(func() { f.fails = 0 })
	f.short.Store(1)
	bs := newBios(1, blk.Read)
	bs.submit(d)
	bs.wait(t, blk.Invalid)
}

// A size that changes is followed.
func TestResize(t *testing.T) {
	f := newFake(1024)
	d := f.device(t, env.Real())
	defer d.Close()
	f.set(func() { f.l.Size = 512 })
	if n := d.Limits().Size; n != 1024 {
		t.Errorf("%d sectors before it was told", n)
	}
	f.changed()
	d.looks.Flush()
	if n := d.Limits().Size; n != 512 {
		t.Errorf("%d sectors", n)
	}
}

// A bio costs no memory; the queue that runs the ends may be idle, and costs some to start.
func TestNoAllocation(t *testing.T) {
	f := newFake(64)
	d := f.device(t, env.Real())
	defer d.Close()
	bs := newBios(batch, blk.Write)
	list := make([]ended, batch)
	n := testing.AllocsPerRun(100, func() {
		bs.under.Add(batch)
		for i := range bs.list {
			slot, st := d.admit(&bs.list[i])
			if st != blk.OK {
				t.Fatal(st)
			}
			list[i].slot = slot
		}
		d.end(list)
		bs.under.Wait()
		for i := range bs.list {
			bs.list[i].Rearm()
		}
	})
	if n > 2 {
		t.Errorf("%v allocations for %d bios", n, batch)
	}
}

func TestAllocated(t *testing.T) {
	a := &allocated{at: 8, end: 64}
	for _, x := range [][2]uint64{{8 * 512, 512}, {9*512 + 100, 10}, {20*512 - 1, 2}, {20 * 512, 600}, {60 * 512, 1 << 20}} {
		if !a.add(x[0], x[1]) {
			t.Fatal("full")
		}
	}
	want := []blk.Extent{
		{Sector: 8, Sectors: 2, Data: true}, {Sector: 10, Sectors: 9}, {Sector: 19, Sectors: 3, Data: true},
		{Sector: 22, Sectors: 38}, {Sector: 60, Sectors: 4, Data: true},
	}
	if got := a.finish(true); !slices.Equal(got, want) {
		t.Errorf("%v", got)
	}
	a = &allocated{end: 1 << 20}
	n := uint64(0)
	for a.add(n*8192+4096, 512) {
		n++
	}
	if list := a.finish(false); len(list) < maxExtents || blk.SumExtents(list) >= a.end {
		t.Errorf("%d extents of %d sectors", len(list), blk.SumExtents(list))
	}
}
