package nbd_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"udm/blk"
	"udm/blk/blktest"
	"udm/blk/checkdev"
	"udm/blk/memdev"
	"udm/blk/nbdclient"
	"udm/env"
	"udm/export"
	"udm/export/nbd"
	"udm/internal/invariants"
	"udm/internal/nbd/proto"
)

// serve starts a server on a Unix socket and returns it with the address.
func serve(t testing.TB, cfg nbd.Config) (*nbd.Server, string) {
	t.Helper()
	addr := filepath.Join(t.TempDir(), "s")
	return listen(t, cfg, "unix", addr), addr
}

func listen(t testing.TB, cfg nbd.Config, network, addr string) *nbd.Server {
	t.Helper()
	s, err := nbd.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	over := make(chan error)
	go func() { over <- s.Serve(l) }()
	t.Cleanup(func() {
		s.Close()
		if err := <-over; err != nbd.ErrClosed {
			t.Errorf("Serve: %v", err)
		}
	})
	return s
}

func dial(t testing.TB, addr string, o nbdclient.Options) *nbdclient.Client {
	t.Helper()
	c, err := nbdclient.Dial(context.Background(), "unix", addr, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func TestConformance(t *testing.T) {
	forms := map[string]nbdclient.Options{"simple": {Simple: true}, "structured": {}, "extended": {Extended: true}}
	for name, o := range forms {
		t.Run(name, func(t *testing.T) { volatile(o).Run(t) })
	}
}

// volatile is the suite for a client of a disk with a volatile cache, whose
// power can be cut: what a client was told to be durable is there afterwards.
func volatile(o nbdclient.Options) blktest.Suite {
	below := make(map[blk.Device]*memdev.Device)
	share := func(t *testing.T, d *memdev.Device) blk.Device {
		_, addr := serve(t, nbd.Config{Exports: nbd.Fixed{{Device: export.Check(d), Extents: d.Extents, SparseReads: true}}})
		c := checkdev.New(dial(t, addr, o), checkdev.Options{Preflush: true})
		below[c] = d
		return c
	}
	return blktest.Suite{
		Open: func(t *testing.T) blk.Device { return share(t, memdev.New(2<<20/blk.SectorSize, memdev.Volatile)) },
		Crash: func(t *testing.T, d blk.Device, seed uint64) blk.Device {
			return share(t, below[d].CrashClone(seed))
		},
	}
}

// On a wire that is no socket, replies go through the portable path.
func TestConformanceOverAPipe(t *testing.T) {
	blktest.TestDevice(t, func(t *testing.T) blk.Device {
		s, err := nbd.New(nbd.Config{Exports: disk()})
		if err != nil {
			t.Fatal(err)
		}
		a, b := net.Pipe()
		go s.ServeConn(a)
		t.Cleanup(func() { s.Close() })
		c, err := nbdclient.New(b, nbdclient.Options{})
		if err != nil {
			t.Fatal(err)
		}
		return checkdev.New(c, checkdev.Options{Preflush: true})
	})
}

// elsewhere completes every bio on another goroutine, and so out of order.
type elsewhere struct {
	blk.Device
	wg *sync.WaitGroup
}

func (e elsewhere) Submit(b *blk.Bio) { e.wg.Go(func() { e.Device.Submit(b) }) }

func TestConformanceOfCompletionsElsewhere(t *testing.T) {
	for _, network := range []string{"unix", "tcp"} {
		t.Run(network, func(t *testing.T) {
			blktest.TestDevice(t, func(t *testing.T) blk.Device {
				var wg sync.WaitGroup
				d := memdev.New(2<<20/blk.SectorSize, memdev.Volatile)
				exports := nbd.Fixed{{Device: export.Check(elsewhere{d, &wg}), Extents: d.Extents, SparseReads: true}}
				addr := filepath.Join(t.TempDir(), "s")
				if network == "tcp" {
					addr = freePort(t)
				}
				t.Cleanup(wg.Wait) // when the server, which submits, is closed
				listen(t, nbd.Config{Exports: exports}, network, addr)
				c, err := nbdclient.Dial(context.Background(), network, addr, nbdclient.Options{Extended: true})
				if err != nil {
					t.Fatal(err)
				}
				return checkdev.New(c, checkdev.Options{Preflush: true})
			})
		})
	}
}

func freePort(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// gated is a server of one gated disk.
func gated(t *testing.T, cfg nbd.Config) (*nbd.Server, *blktest.Gate, string) {
	g := blktest.NewGate(env.Real(), memdev.New(diskSize/blk.SectorSize))
	cfg.Exports = nbd.Fixed{{Device: export.Check(g)}}
	t.Cleanup(g.Open)
	s, addr := serve(t, cfg)
	t.Cleanup(g.Open) // before the server's cleanup
	return s, g, addr
}

// submit starts a bio and returns where its status comes out.
func submit(d blk.Device, op blk.Op, sector, sectors uint64) <-chan blk.Status {
	ch := make(chan blk.Status, 1)
	b := &blk.Bio{Op: op, Sector: sector}
	if op.HasData() {
		b.SetData(make([]byte, sectors*blk.SectorSize))
	} else {
		b.Sectors = sectors
	}
	b.End = func(b *blk.Bio) { ch <- b.Status() }
	d.Submit(b)
	return ch
}

func TestRepliesInOrderOfCompletion(t *testing.T) {
	blktest.Leaks(t)
	_, g, addr := gated(t, nbd.Config{})
	c := dial(t, addr, nbdclient.Options{})
	var results [3]<-chan blk.Status
	for i := range results {
		results[i] = submit(c, blk.Read, uint64(8*i), 8)
		g.WaitHeld(i + 1)
	}
	g.Release(2)
	if st := <-results[2]; st != blk.OK {
		t.Error(st)
	}
	g.Fail(0, blk.IOErr)
	if st := <-results[0]; st != blk.IOErr {
		t.Error(st)
	}
	g.Release(1)
	if st := <-results[1]; st != blk.OK {
		t.Error(st)
	}
}

func TestShutdownFinishesWhatIsUnderWayAndRefusesTheRest(t *testing.T) {
	blktest.Leaks(t)
	s, g, addr := gated(t, nbd.Config{})
	c, idle := dial(t, addr, nbdclient.Options{}), dial(t, addr, nbdclient.Options{})
	first := submit(c, blk.Write, 0, 8)
	g.WaitHeld(1)
	over := make(chan error)
	go func() { over <- s.Shutdown(context.Background()) }()
	// A request beyond the end is refused in any case: with EINVAL before, with
	// ESHUTDOWN after.
	st := blk.Invalid
	for st == blk.Invalid {
		st = <-submit(c, blk.Read, diskSize, 8)
	}
	if st != blk.Offline {
		t.Errorf("a request after shutdown: %v, want ESHUTDOWN", st)
	}
	if st = <-submit(c, blk.Write, 8, 8); st != blk.Offline || c.Err() != nil {
		t.Errorf("another request after shutdown: %v, %v", st, c.Err())
	}
	for st = blk.Invalid; st == blk.Invalid; { // it is cut, being idle
		st = <-submit(idle, blk.Read, diskSize, 8)
	}
	if c.Err() != nil {
		t.Error("the connection was cut with a request under way")
	}
	g.ReleaseAll()
	if st := <-first; st != blk.OK {
		t.Errorf("the request under way: %v", st)
	}
	if err := <-over; err != nil {
		t.Error(err)
	}
}

// slowSubmit holds the goroutine that submits.
type slowSubmit struct {
	blk.Device
	inside, leave chan bool
}

func (d slowSubmit) Submit(b *blk.Bio) {
	d.inside <- true
	<-d.leave
	d.Device.Submit(b)
}

// A connection whose only request the reader is still handing to the device is
// not idle.
func TestShutdownDoesNotCutWhileTheReaderSubmits(t *testing.T) {
	blktest.Leaks(t)
	d := slowSubmit{memdev.New(diskSize / blk.SectorSize), make(chan bool), make(chan bool)}
	s, addr := serve(t, nbd.Config{Exports: nbd.Fixed{{Device: export.Check(d)}}})
	c := dial(t, addr, nbdclient.Options{})
	var idle [8]*nbdclient.Client
	for i := range idle {
		idle[i] = dial(t, addr, nbdclient.Options{})
	}
	first := submit(c, blk.Write, 0, 8)
	<-d.inside
	over := make(chan error)
	go func() { over <- s.Shutdown(context.Background()) }()
	for _, i := range idle { // connections are told in any order: c, most likely, not last
		for st := blk.Invalid; st == blk.Invalid; {
			st = <-submit(i, blk.Read, diskSize, 8)
		}
	}
	second := submit(c, blk.Write, 8, 8)
	d.leave <- true
	if st := <-first; st != blk.OK {
		t.Errorf("the request under way: %v", st)
	}
	if st := <-second; st != blk.Offline {
		t.Errorf("a request after shutdown: %v", st)
	}
	if err := <-over; err != nil {
		t.Error(err)
	}
}

func TestShutdownGivesUpInTime(t *testing.T) {
	blktest.Leaks(t)
	s, g, addr := gated(t, nbd.Config{})
	c := dial(t, addr, nbdclient.Options{})
	stuck := submit(c, blk.Write, 0, 8)
	g.WaitHeld(1)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	over := make(chan error)
	go func() { over <- s.Shutdown(ctx) }()
	if st := <-stuck; st != blk.Offline {
		t.Error(st)
	}
	select {
	case <-over:
		t.Error("the server did not wait for the bio that it submitted")
	default:
	}
	g.ReleaseAll()
	if err := <-over; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestClientThatGoesAwayLeavesItsDeviceWhenItsBiosHaveEnded(t *testing.T) {
	blktest.Leaks(t)
	released := make(chan bool, 1)
	g := blktest.NewGate(env.Real(), memdev.New(diskSize/blk.SectorSize))
	_, addr := serve(t, nbd.Config{Exports: nbd.Fixed{{Device: export.Check(g), Release: func() { released <- true }}}})
	nc, err := net.Dial("unix", addr)
	if err != nil {
		t.Fatal(err)
	}
	tp := newTape(fixed).attach("simple", "").request(proto.CmdWrite, 0, 0, 4096, ones(4096)...).request(proto.CmdRead, 0, 0, 4096)
	nc.Write(tp.in.Bytes())
	g.WaitHeld(2)
	nc.Close()
	g.Release(0)
	select {
	case <-released:
		t.Fatal("released with a bio under way")
	default:
	}
	g.Release(1)
	<-released
}

func TestConnectionLimit(t *testing.T) {
	blktest.Leaks(t)
	_, addr := serve(t, nbd.Config{Exports: disk(), MaxConns: 1})
	c := dial(t, addr, nbdclient.Options{})
	if c2, err := nbdclient.Dial(context.Background(), "unix", addr, nbdclient.Options{}); err == nil {
		c2.Close()
		t.Error("a second client was let in")
	}
	if err := blk.FlushDevice(env.Real(), c); err != nil {
		t.Error(err)
	}
}

// logText is what was logged.
type logText struct {
	mu   sync.Mutex
	text bytes.Buffer // guarded by mu
}

func (l *logText) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logText) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// Clients that are refused because the server is full are told of once, until one
// leaves, however often they try.
func TestFullServerIsToldOnce(t *testing.T) {
	blktest.Leaks(t)
	var log logText
	s, addr := serve(t, nbd.Config{Exports: disk(), MaxConns: 1, Log: slog.New(slog.NewTextHandler(&log, nil))})
	for round := 1; round <= 2; round++ {
		c := dial(t, addr, nbdclient.Options{})
		for range 5 {
			if c2, err := nbdclient.Dial(context.Background(), "unix", addr, nbdclient.Options{}); err == nil {
				c2.Close()
				t.Error("a second client was let in")
			}
		}
		if n := strings.Count(log.String(), "1 clients are connected, which is the limit"); n != round {
			t.Errorf("told %d times in %d rounds:\n%s", n, round, &log)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		for s.Conns() > 0 {
			runtime.Gosched()
		}
	}
}

// A client that sends without end and reads nothing is made to wait: it cannot
// make the server hold more than its limits.
func TestBackPressure(t *testing.T) {
	blktest.Leaks(t)
	s, g, addr := gated(t, nbd.Config{})
	nc, err := net.Dial("unix", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	tp := newTape(fixed).attach("simple", "")
	for range 2000 {
		tp.request(proto.CmdRead, 0, 0, 512)
	}
	sent := make(chan bool)
	go func() { nc.Write(tp.in.Bytes()); close(sent) }()
	g.WaitHeld(512)
	<-sent // all fit into the socket's buffer; the server takes no more
	if n := len(g.WaitHeld(512)); n != 512 {
		t.Errorf("%d requests under way", n)
	}
	g.Open() // replies fill the socket; nobody reads them
	s.Close()
}

// A reply that does not fit into the socket is sent on by a helper, in whole;
// the goroutine on which the bio ended does not wait.
func TestFullSocket(t *testing.T) {
	blktest.Leaks(t)
	const sectors = 16 << 20 / blk.SectorSize
	d := memdev.New(sectors)
	want := blktest.Pattern(0, sectors, 3)
	if err := blk.WriteSectors(env.Real(), d, want, 0, 0); err != nil {
		t.Fatal(err)
	}
	g := blktest.NewGate(env.Real(), d)
	_, addr := serve(t, nbd.Config{Exports: nbd.Fixed{{Device: export.Check(g)}}})
	c := dial(t, addr, nbdclient.Options{})
	got := make([]byte, len(want))
	over := make(chan blk.Status, 1)
	b := &blk.Bio{Op: blk.Read, End: func(b *blk.Bio) {
		over <- b.Status()
		if b.Private != nil {
			<-b.Private.(chan bool)
		}
	}}
	// The client's goroutine that receives stands still, so that the socket
	// fills, until the reply was handed over.
	still := make(chan bool)
	b.Private = still
	b.SetData(make([]byte, 512))
	c.Submit(b)
	g.WaitHeld(1)
	big := &blk.Bio{Op: blk.Read, End: func(b *blk.Bio) { over <- b.Status() }}
	big.SetData(got)
	c.Submit(big)
	g.WaitHeld(2)
	g.Release(0)
	<-over
	g.Release(1) // returns although nobody reads
	close(still)
	if st := <-over; st != blk.OK || !bytes.Equal(got, want) {
		t.Errorf("%v, or wrong data", st)
	}
}

func TestStallOnASocket(t *testing.T) {
	blktest.Leaks(t)
	_, addr := serve(t, nbd.Config{Exports: disk(), StallTimeout: 20 * time.Millisecond})
	nc, err := net.Dial("unix", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	nc.Write(newTape(fixed).attach("simple", "").request(proto.CmdWrite, 0, 0, 4096, ones(100)...).in.Bytes())
	for p := make([]byte, 4096); err == nil; {
		_, err = nc.Read(p)
	}
}

// A client that does not take its replies is told of as long as it does not.
func TestStalledClient(t *testing.T) {
	blktest.Leaks(t)
	s, addr := serve(t, nbd.Config{Exports: disk()})
	nc, err := net.Dial("unix", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	tp := newTape(fixed).attach("simple", "")
	for range 256 {
		tp.request(proto.CmdRead, 0, 0, 16384)
	}
	nc.Write(tp.in.Bytes())
	stalls := func() bool {
		list := s.Clients()
		return len(list) == 1 && list[0].Stalled > time.Millisecond
	}
	for !stalls() {
		runtime.Gosched()
	}
	drained := make(chan bool)
	go func() { drain(nc); close(drained) }()
	for stalls() {
		runtime.Gosched()
	}
	nc.Close()
	<-drained
}

// pipe serves one end of a pipe and plays a tape at the other.
func pipe(t *testing.T, cfg nbd.Config, tp *tape) (over chan error, client net.Conn) {
	s, err := nbd.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	a, b := net.Pipe()
	over = make(chan error, 1)
	go func() { over <- s.ServeConn(a) }()
	go b.Write(tp.in.Bytes())
	return over, b
}

func drain(c net.Conn) {
	for p := make([]byte, 4096); ; {
		if _, err := c.Read(p); err != nil {
			return
		}
	}
}

func TestTimeLimits(t *testing.T) {
	half := newTape(fixed)
	half.in.WriteString("IHAVEOPT\x00")
	stalled := newTape(fixed).attach("simple", "").request(proto.CmdWrite, 0, 0, 4096, ones(100)...)
	for _, c := range []struct {
		name string
		tape *tape
		read bool
		want time.Duration // 0: for ever
	}{
		{"silence", &tape{}, true, 30 * time.Second},
		{"half an option", half, true, 30 * time.Second},
		{"half a request", stalled, true, 10 * time.Minute},
		{"no replies read", newTape(fixed).option(proto.OptList), false, 30 * time.Second},
		{"idle", newTape(fixed).attach("simple", ""), true, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				over, client := pipe(t, nbd.Config{Exports: disk()}, c.tape)
				if c.read {
					go drain(client)
				}
				if c.want == 0 {
					time.Sleep(1000 * time.Hour)
					client.Close()
					if err := <-over; err != nil {
						t.Error(err)
					}
					return
				}
				err := <-over
				if took := time.Since(start); err == nil || took != c.want {
					t.Errorf("ended after %v with %v, want %v", took, err, c.want)
				}
				client.Close()
			})
		})
	}
}

func TestServerNeedsExports(t *testing.T) {
	if _, err := nbd.New(nbd.Config{}); err == nil {
		t.Error("made a server of nothing")
	}
	if _, err := nbd.New(nbd.Config{Exports: disk(), TLS: nbd.TLS{Mode: nbd.TLSOn}}); err == nil {
		t.Error("made a server with TLS and no certificate")
	}
}

func TestResizeIsSeenByNewConnections(t *testing.T) {
	d := memdev.New(2048)
	_, addr := serve(t, nbd.Config{Exports: nbd.Fixed{{Device: export.Check(d)}}})
	old := dial(t, addr, nbdclient.Options{})
	d.Resize(4096)
	if c := dial(t, addr, nbdclient.Options{}); c.Limits().Size != 4096 || old.Limits().Size != 2048 {
		t.Errorf("sizes %d and %d", c.Limits().Size, old.Limits().Size)
	}
	if st := <-submit(old, blk.Read, 2048, 8); st != blk.Invalid {
		t.Errorf("an old client reads beyond the size that it was told: %v", st)
	}
	d.Resize(1024)
	if st := <-submit(old, blk.Read, 1024, 8); st != blk.Invalid {
		t.Errorf("a read beyond the new end: %v", st)
	}
}

// In steady state a request allocates nothing in the server.
func TestSteadyStateDoesNotAllocate(t *testing.T) {
	if invariants.Enabled {
		return // the checks of checkdev allocate
	}
	s, err := nbd.New(nbd.Config{Exports: disk()})
	if err != nil {
		t.Fatal(err)
	}
	tp := newTape(fixed).attach("structured", "disk")
	for range 100 {
		tp.request(proto.CmdWrite, 0, 4096, 4096, ones(4096)...)
		tp.request(proto.CmdRead, 0, 4096, 4096)
	}
	once := tp.in.Bytes()
	allocs := func(rounds int) float64 {
		return testing.AllocsPerRun(5, func() {
			if err := s.ServeConn(&loop{first: once, rounds: rounds, again: once[len(once)-100*(28+28+4096):]}); err != nil {
				t.Fatal(err)
			}
		})
	}
	if more := allocs(101) - allocs(1); more > 20 {
		t.Errorf("%.0f allocations for 20,000 requests", more)
	}
}

// loop says the first bytes, then again rounds times, and drops the answers.
type loop struct {
	first, again []byte
	rounds       int
}

func (l *loop) Read(p []byte) (int, error) {
	if len(l.first) == 0 {
		if l.rounds--; l.rounds < 0 {
			return 0, io.EOF
		}
		l.first = l.again
	}
	n := copy(p, l.first)
	l.first = l.first[n:]
	return n, nil
}

func (l *loop) Write(p []byte) (int, error) { return len(p), nil }

// mute is a stream without deadlines on which nothing ever comes.
type mute struct {
	closed chan bool
	once   *sync.Once
	first  io.Reader
}

func (m mute) Read(p []byte) (int, error) {
	if n, _ := m.first.Read(p); n > 0 {
		return n, nil
	}
	<-m.closed
	return 0, io.ErrClosedPipe
}

func (m mute) Write(p []byte) (int, error) { return len(p), nil }
func (m mute) Close() error                { m.once.Do(func() { close(m.closed) }); return nil }

func TestCloseEndsAStreamWithoutDeadlines(t *testing.T) {
	blktest.Leaks(t)
	for name, tp := range map[string]*tape{"handshake": newTape(fixed), "transmission": newTape(fixed).attach("simple", "")} {
		s, err := nbd.New(nbd.Config{Exports: disk()})
		if err != nil {
			t.Fatal(err)
		}
		m := mute{make(chan bool), new(sync.Once), &tp.in}
		over := make(chan error)
		go func() { over <- s.ServeConn(m) }()
		for s.Conns() == 0 {
			runtime.Gosched()
		}
		s.Close()
		t.Log(name, <-over)
	}
}
