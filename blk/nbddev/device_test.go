package nbddev_test

import (
	"errors"
	"io"
	"net"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"udm/blk"
	"udm/blk/blktest"
	"udm/blk/memdev"
	"udm/blk/nbddev"
	"udm/env"
)

// cutter cuts the first connection after n bytes, of both directions together.
func cutter(n int64) func(net.Conn) io.ReadWriteCloser {
	var first atomic.Bool
	return func(c net.Conn) io.ReadWriteCloser {
		if first.Swap(true) {
			return c
		}
		return &cut{Conn: c, left: n}
	}
}

type cut struct {
	net.Conn
	mu   sync.Mutex
	left int64 // guarded by mu
}

// take is how many of n bytes may pass.
func (c *cut) take(n int) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	m := min(int64(n), c.left)
	c.left -= m
	return int(m)
}

var errCut = errors.New("cut")

func (c *cut) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if m := c.take(n); m < n {
		c.Conn.Close()
		return m, errCut
	}
	return n, err
}

func (c *cut) Write(p []byte) (int, error) {
	m := c.take(len(p))
	n, err := c.Conn.Write(p[:m])
	if err == nil && m < len(p) {
		c.Conn.Close()
		return n, errCut
	}
	return n, err
}

var blocks4096 = memdev.Tune(func(l *blk.Limits) { l.LogicalBlock, l.PhysicalBlock, l.MinIO = 4096, 4096, 4096 })

func TestConformance(t *testing.T) {
	for name, disk := range map[string]func() *memdev.Device{
		"volatile": func() *memdev.Device { return memdev.New(4096, memdev.Volatile) },
		"durable":  func() *memdev.Device { return memdev.New(4096) },
		"4096":     func() *memdev.Device { return memdev.New(4096, blocks4096) },
	} {
		t.Run(name, func(t *testing.T) {
			blktest.TestDevice(t, func(t *testing.T) blk.Device {
				r := newRemote(t, disk())
				r.start()
				return r.open(nbddev.Options{})
			})
		})
	}
}

func report(d blk.Device) blk.Report {
	r, _ := blk.ReportOf(d)
	return r
}

// until waits for a report; nobody is told when it changes.
func until(d blk.Device, ok func(blk.Report) bool) {
	for !ok(report(d)) {
		runtime.Gosched()
	}
}

func mustOpen(t *testing.T, r *remote, o nbddev.Options) *nbddev.Device {
	t.Helper()
	d, err := r.tryOpen(o)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestChangedExports(t *testing.T) {
	blktest.Leaks(t)
	r := newRemote(t, memdev.New(256))
	r.start()
	d := mustOpen(t, r, nbddev.Options{})
	l := blktest.NewLoad(t, d, 256)
	l.Write(blk.Write, 0, 256, 0)
	resize := func(n uint64) func(*memdev.Device) *memdev.Device {
		return func(d *memdev.Device) *memdev.Device { d = d.Clone(); d.Resize(n); return d }
	}
	good := r.disk
	for why, change := range map[string]func(*memdev.Device) *memdev.Device{
		"shrunk from 256 to 255": resize(255),
		"read-only":              func(d *memdev.Device) *memdev.Device { d = d.Clone(); d.SetReadOnly(true); return d },
		"other features":         func(*memdev.Device) *memdev.Device { return memdev.New(256, blocks4096) },
	} {
		r.restart(change)
		until(d, func(r blk.Report) bool { return r.State == "refused" && strings.Contains(r.Why, why) })
		if d.Limits().Size != 256 || d.Limits().ReadOnly {
			t.Errorf("%s: taken: %+v", why, d.Limits())
		}
		r.restart(func(*memdev.Device) *memdev.Device { return good })
		l.Read(0, 256)
	}
	r.restart(resize(512))
	l.Read(0, 256)
	if n := d.Limits().Size; n != 512 {
		t.Errorf("a grown export has %d sectors", n)
	}
	d.Close()
}

// badDisk refuses writes for a while.
type badDisk struct {
	blk.Device
	bad *atomic.Bool
}

func (b badDisk) Submit(x *blk.Bio) {
	if b.bad.Load() && x.Op != blk.Read {
		x.Complete(blk.IOErr)
		return
	}
	b.Device.Submit(x)
}

// What cannot be repeated makes the next flush fail, once.
func TestFlushTellsWhatWasLost(t *testing.T) {
	blktest.Leaks(t)
	var bad atomic.Bool
	r := newRemote(t, memdev.New(256, memdev.Volatile))
	r.wrap = func(d blk.Device) blk.Device { return badDisk{d, &bad} }
	r.start()
	d := mustOpen(t, r, nbddev.Options{})
	e := env.Real()
	if err := blk.WriteSectors(e, d, blktest.Pattern(0, 8, 1), 0, 0); err != nil {
		t.Fatal(err)
	}
	if n := report(d).Unflushed; n != 4096 {
		t.Errorf("%d bytes are not flushed", n)
	}
	bad.Store(true)
	r.restart(same)
	until(d, func(r blk.Report) bool { return r.Reconnects == 1 })
	bad.Store(false)
	if why := report(d).Why; !strings.Contains(why, "refused to repeat") {
		t.Errorf("it says %q", why)
	}
	for i, want := range []error{blk.IOErr, nil} {
		if err := blk.FlushDevice(e, d); err != want {
			t.Errorf("flush %d: %v, want %v", i, err, want)
		}
	}
	if n := report(d).Unflushed; n != 0 {
		t.Errorf("%d bytes are not flushed after a flush", n)
	}
	d.Close()
}

// The device's own flushes bound what it keeps, and their failure is told.
func TestBufferIsBounded(t *testing.T) {
	blktest.Leaks(t)
	var bad atomic.Bool
	r := newRemote(t, memdev.New(24<<10, memdev.Volatile))
	r.wrap = func(d blk.Device) blk.Device { return badFlush{d, &bad} }
	r.start()
	d := mustOpen(t, r, nbddev.Options{Buffer: 1})
	e := env.Real()
	fill := func() {
		for at := uint64(0); at < 24<<10; at += 2048 {
			if err := blk.WriteSectors(e, d, blktest.Pattern(at, 2048, 1), at, 0); err != nil {
				t.Fatal(err)
			}
			if n := report(d).Unflushed; n > 4<<20 {
				t.Fatalf("%d bytes are kept", n)
			}
		}
	}
	fill()
	bad.Store(true)
	fill()
	until(d, func(r blk.Report) bool { return r.Unflushed <= 2<<20 })
	bad.Store(false)
	for i, want := range []error{blk.IOErr, nil} {
		if err := blk.FlushDevice(e, d); err != want {
			t.Errorf("flush %d: %v, want %v", i, err, want)
		}
	}
	d.Close()
}

type badFlush struct {
	blk.Device
	bad *atomic.Bool
}

func (b badFlush) Submit(x *blk.Bio) {
	if b.bad.Load() && x.Op == blk.Flush {
		x.Complete(blk.IOErr)
		return
	}
	b.Device.Submit(x)
}

// A server that does not answer is left, and hangs neither bios with a time limit
// nor Close.
func TestSilentServer(t *testing.T) {
	blktest.Leaks(t)
	gate := blktest.NewGate(env.Real(), memdev.New(256))
	gate.Shut()
	r := newRemote(t, memdev.New(256))
	r.wrap = func(blk.Device) blk.Device { return gate }
	r.start()
	d := mustOpen(t, r, nbddev.Options{Timeout: 50 * time.Millisecond})
	e := env.Real()
	p := make([]byte, 512)
	if err := blk.ReadSectors(e, d, p, 0); err != blk.Timeout {
		t.Errorf("a read that has no answer: %v", err)
	}
	forever := mustOpen(t, r, nbddev.Options{})
	b := &blk.Bio{Op: blk.Read, Sector: 1}
	b.SetData(p)
	ended := make(chan blk.Status, 1)
	b.End = func(b *blk.Bio) { ended <- b.Status() }
	forever.Submit(b)
	d.Close()
	forever.Close()
	if st := <-ended; st != blk.Offline {
		t.Errorf("a read under way at Close: %v", st)
	}
	gate.Open()
}

// heldFlush answers no flush until it is released; other bios go on.
type heldFlush struct {
	blk.Device
	release chan struct{}
}

func (h heldFlush) Submit(b *blk.Bio) {
	if b.Op != blk.Flush {
		h.Device.Submit(b)
		return
	}
	go func() {
		<-h.release
		h.Device.Submit(b)
	}()
}

// The time limit holds for a write that waits for room, too.
func TestSilentFlush(t *testing.T) {
	blktest.Leaks(t)
	release := make(chan struct{})
	r := newRemote(t, memdev.New(16<<10, memdev.Volatile))
	r.wrap = func(d blk.Device) blk.Device { return heldFlush{d, release} }
	r.start()
	d := mustOpen(t, r, nbddev.Options{Timeout: 100 * time.Millisecond, Buffer: 1, Connections: 1})
	var err error
	for at := uint64(0); err == nil && at < 16<<10; at += 2048 {
		err = blk.WriteSectors(env.Real(), d, blktest.Pattern(at, 2048, 1), at, 0)
	}
	if err != blk.Timeout {
		t.Errorf("without room: %v", err)
	}
	close(release)
	d.Close()
}

// Without a server bios wait, up to the depth; NoWait does not; Close ends them.
func TestGone(t *testing.T) {
	blktest.Leaks(t)
	r := newRemote(t, memdev.New(256))
	r.start()
	d := mustOpen(t, r, nbddev.Options{})
	r.stop()
	until(d, func(r blk.Report) bool { return r.State == "connecting" })
	var offline atomic.Int32
	bios := make([]blk.Bio, nbddev.Depth)
	for i := range bios {
		bios[i].SetData(make([]byte, 512))
		bios[i].End = func(b *blk.Bio) {
			if b.Status() == blk.Offline {
				offline.Add(1)
			}
		}
		d.Submit(&bios[i])
	}
	b := &blk.Bio{Op: blk.Read, Flags: blk.NoWait}
	b.SetData(make([]byte, 512))
	if st := blk.Do(env.Real(), d, b); st != blk.WouldBlock {
		t.Errorf("NoWait: %v", st)
	}
	if n := report(d).UnderWay; n != nbddev.Depth {
		t.Errorf("%d bios are under way", n)
	}
	if blk.ExtentsOf(d, 0, 256)[0] != (blk.Extent{Sectors: 256, Data: true}) {
		t.Error("a map without a server")
	}
	d.Close()
	if offline.Load() != nbddev.Depth {
		t.Errorf("%d of %d bios ended", offline.Load(), nbddev.Depth)
	}
}

// One of several paths does not wait without a server, and sends nothing again: what was
// written over another path meanwhile stays.
func TestPath(t *testing.T) {
	blktest.Leaks(t)
	r := newRemote(t, memdev.New(256, memdev.Volatile))
	r.start()
	d := mustOpen(t, r, nbddev.Options{Path: true})
	e := env.Real()
	if err := blk.WriteSectors(e, d, blktest.Pattern(0, 8, 1), 0, 0); err != nil {
		t.Fatal(err)
	}
	r.stop()
	until(d, func(r blk.Report) bool { return r.State == "connecting" })
	if err := blk.WriteSectors(e, d, blktest.Pattern(0, 8, 1), 0, 0); err != blk.Offline {
		t.Errorf("without a server: %v", err)
	}
	if err := blk.WriteSectors(e, r.disk, blktest.Pattern(0, 8, 2), 0, 0); err != nil {
		t.Error(err)
	}
	r.start()
	until(d, func(r blk.Report) bool { return r.State == "connected" })
	p := make([]byte, 4096)
	if err := blk.ReadSectors(e, d, p, 0); err != nil {
		t.Error(err)
	}
	if err := blktest.Check(p, 0, 2); err != nil {
		t.Error(err)
	}
	d.Close()
}

// An End may submit, however many bios are under way.
func TestEndSubmits(t *testing.T) {
	blktest.Leaks(t)
	r := newRemote(t, memdev.New(256))
	r.start()
	d := mustOpen(t, r, nbddev.Options{})
	var left sync.WaitGroup
	for range 4 * nbddev.Depth {
		left.Add(1)
		b := &blk.Bio{Op: blk.Read}
		b.SetData(make([]byte, 512))
		again := 5
		b.End = func(b *blk.Bio) {
			if again--; again == 0 {
				left.Done()
				return
			}
			b.Rearm()
			d.Submit(b)
		}
		go d.Submit(b)
	}
	left.Wait()
	d.Close()
}
