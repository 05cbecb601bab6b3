//go:build linux

package vhost

import (
	"context"
	"fmt"
	"net"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"udm/blk"
	"udm/export"
)

// chain is servers of a disk, of which each goes on where the one before has left.
type chain struct {
	t     *testing.T
	s     *Server
	path  string
	disk  export.Exports
	ended chan error
}

func newChain(t *testing.T, d blk.Device) *chain {
	x := export.Export{Info: export.Info{Name: "d"}, Device: export.Check(d)}
	c := &chain{t: t, path: t.TempDir() + "/s", disk: export.Fixed{x}}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: c.path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	c.s = c.server()
	c.serve(l)
	t.Cleanup(func() {
		c.s.Close()
		c.over()
	})
	return c
}

func (c *chain) server() *Server {
	return must[*Server](c.t)(New(Config{Name: "d", Queues: 2, Serial: "serial-of-20-bytes-!", Exports: c.disk}))
}

func (c *chain) serve(l *net.UnixListener) {
	accept, ended := c.s.Listen(l), make(chan error, 1)
	c.ended = ended
	go func() { ended <- accept() }()
}

func (c *chain) over() {
	if err := <-c.ended; err != ErrClosed {
		c.t.Errorf("Serve: %v", err)
	}
}

// next has another server go on.
func (c *chain) next() {
	c.t.Helper()
	m, err := c.s.Hand(context.Background())
	if err != nil {
		c.t.Fatal(err)
	}
	if n := len(c.s.Clients()); n != 0 {
		c.t.Errorf("%d front ends are left", n)
	}
	c.over()
	c.take(m)
}

func (c *chain) take(m *Moved) {
	c.t.Helper()
	c.s = c.server()
	l := must[net.Listener](c.t)(net.FileListener(m.Listeners[0]))
	serve, err := c.s.Take(m)
	if err != nil {
		c.t.Fatal(err)
	}
	c.serve(l.(*net.UnixListener))
	serve()
}

// recorded is a guest with a record of its requests in flight.
func recorded(t testing.TB, path string, packed bool) *front {
	f := connect(t, path, true)
	f.packed = packed
	f.negotiate(0)
	d, fd := f.inflight(inflightDesc{rings: 2, num: ringSize})
	defer unix.Close(fd)
	f.mustDo(&message{request: setInflightFD, inflight: d}, fd)
	f.start(0)
	return f
}

func everyGuest(t *testing.T, test func(*testing.T, func(testing.TB, string) *front)) {
	for _, packed := range []bool{false, true} {
		for _, sealable := range []bool{false, true} {
			t.Run(fmt.Sprint("packed ", packed, " sealable ", sealable), func(t *testing.T) {
				test(t, func(t testing.TB, path string) *front {
					f := connect(t, path, sealable)
					f.packed = packed
					f.negotiate(0)
					f.start(0)
					return f
				})
			})
		}
		t.Run(fmt.Sprint("packed ", packed, " recorded"), func(t *testing.T) {
			test(t, func(t testing.TB, path string) *front { return recorded(t, path, packed) })
		})
	}
}

// A guest notices nothing when other servers go on, and what it has set up stays.
func TestHandedOver(t *testing.T) {
	everyGuest(t, func(t *testing.T, begin func(testing.TB, string) *front) {
		c := newChain(t, &elsewhere{Device: newDisk()})
		f := begin(t, c.path)
		f.mustDo(&message{request: setConfig, config: configPart{writebackAt, 0, []byte{0}}})
		status := f.ask(&message{request: getStatus}).value
		random(t, f, 2000, func(i int) {
			if i%100 == 99 {
				c.next()
			}
		})
		if now := f.ask(&message{request: getStatus}).value; now != status {
			t.Errorf("the status is %#x, and was %#x", now, status)
		}
		if mode := f.ask(&message{request: getConfig, config: configPart{writebackAt, 0, []byte{1}}}).config.data[0]; mode != 0 {
			t.Errorf("the cache mode is %d", mode)
		}
		f.mustDo(&message{request: setMemTable, regions: []regionDesc{f.region()}}, f.fd)
		everyRequest(t, f)
		f.close()
		everyRequest(t, guest(t, c.path, true, 0))
	})
}

// Servers without a front end, and those whose front end has set up nothing, go over too.
func TestHandedOverIdle(t *testing.T) {
	c := newChain(t, newDisk())
	c.next()
	f := connect(t, c.path, true)
	c.next()
	f.negotiate(0)
	c.next()
	f.start(0)
	everyRequest(t, f)
	open := openFiles(t)
	for range 10 {
		c.next()
	}
	everyRequest(t, f)
	if now := openFiles(t); now > open {
		t.Errorf("%d files are open, and %d were", now, open)
	}
	if m, err := c.s.Hand(context.Background()); m == nil || err != nil {
		t.Error(m, err)
	} else if again, err := c.s.Hand(context.Background()); again != nil || err != nil {
		t.Errorf("handed over twice: %+v, %v", again, err)
	} else {
		c.over()
		c.take(m)
	}
}

// While I/O does not end, the server serves on, after as many attempts as you like.
func TestHandCalledOff(t *testing.T) {
	everyGuest(t, func(t *testing.T, begin func(testing.TB, string) *front) {
		d := &held{elsewhere{Device: newDisk()}, make(chan struct{})}
		begun := make(chan struct{})
		c := newChain(t, &announcing{d, begun})
		f := begin(t, c.path)
		f.add(&ioreq{op: typeIn, in: 512})
		f.publish()
		<-begun
		for range 3 {
			ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
			if m, err := c.s.Hand(ctx); m != nil || err == nil {
				t.Fatalf("handed over: %v", err)
			}
			cancel()
		}
		close(d.open)
		if r := f.wait(); r.status != statusOK {
			t.Errorf("status %d", r.status)
		}
		f.ask(&message{request: getFeatures})
		f.mustDo(&message{request: setVringEnable, num: 1})
	})
}

// failingOnce fails the first bio, not before it may.
type failingOnce struct {
	*announcing
	may    chan struct{}
	failed bool
}

func (d *failingOnce) Submit(b *blk.Bio) {
	if d.failed {
		d.Device.Submit(b)
		return
	}
	d.failed = true
	d.wg.Go(func() {
		close(d.begun)
		<-d.may
		b.Complete(blk.IOErr)
	})
}

// What fails while a server is being handed over is repeated by the next one.
func TestFailedIsRepeated(t *testing.T) {
	everyGuest(t, func(t *testing.T, begin func(testing.TB, string) *front) {
		d := &failingOnce{&announcing{&held{elsewhere: elsewhere{Device: newDisk()}}, make(chan struct{})}, make(chan struct{}), false}
		c := newChain(t, d)
		f := begin(t, c.path)
		f.add(&ioreq{op: typeOut, out: 512})
		f.publish()
		<-d.begun
		got := make(chan *Moved)
		go func() {
			m, _ := c.s.Hand(context.Background())
			got <- m
		}()
		for !c.s.stops() {
			runtime.Gosched()
		}
		close(d.may)
		m := <-got
		c.over()
		c.take(m)
		if r := f.wait(); r.status != statusOK {
			t.Errorf("status %d", r.status)
		}
		everyRequest(t, f)
	})
}

// stops reports whether the rings have been told to stop.
func (s *Server) stops() (is bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.handing != nil && s.handing.taken {
		w := s.session.rings[0].worker
		w.do(func() { is = w.moving })
	}
	return is
}
