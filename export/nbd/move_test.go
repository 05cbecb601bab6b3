//go:build linux

package nbd_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"udm/blk"
	"udm/blk/blktest"
	"udm/blk/memdev"
	"udm/blk/nbdclient"
	"udm/env"
	"udm/export"
	"udm/export/nbd"
	"udm/internal/nbd/proto"
)

// sockets are the server's and the client's end of a connection.
func sockets(t *testing.T) (server, client net.Conn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	ends := make([]net.Conn, 2)
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "socket")
		if ends[i], err = net.FileConn(f); err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
	t.Cleanup(func() { ends[1].Close() })
	return ends[0], ends[1]
}

func newServer(t *testing.T, cfg nbd.Config) *nbd.Server {
	t.Helper()
	s, err := nbd.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// move hands all connections of a server to another one.
func move(t *testing.T, from, to *nbd.Server) {
	t.Helper()
	from.Settle(context.Background())
	list, err := from.Hand(context.Background(), nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range list {
		serve, err := to.Take(m)
		if err != nil {
			t.Fatal(err)
		}
		serve()
	}
}

// session is a client's bytes, with requests of every length and kind.
func session(mode string) (tp *tape, handshake int) {
	tp = newTape(proto.FlagFixedNewstyle|proto.FlagNoZeroes).attach(mode, "disk")
	handshake = tp.in.Len()
	big := ones(300 << 10)
	tp.request(proto.CmdWrite, 0, 0, 1024, ones(1024)...)
	tp.request(proto.CmdRead, 0, 0, 2048)
	tp.request(proto.CmdWrite, 0, 1<<20, uint64(len(big)), big...)
	tp.request(proto.CmdWrite, 0, 1<<40, 600, ones(600)...) // refused, and skipped
	tp.request(proto.CmdFlush, 0, 0, 0)
	tp.request(proto.CmdRead, 0, 1<<20-512, 4096)
	tp.request(proto.CmdDisc, 0, 0, 0)
	return tp, handshake
}

// cuts are places in a session: all bytes around headers, and some in payloads.
func cuts(handshake, end int) (list []int) {
	step := 1
	if testing.Short() {
		step = 307
	}
	for at := handshake; at < end; at += step {
		if at-handshake > 3000 && end-at > 3000 {
			at += 40 << 10
		}
		list = append(list, min(at, end-1)) // at the end the client is gone
	}
	return list
}

// A connection that is moved between any two bytes answers as if it had not been.
func TestMovedBetweenAnyTwoBytes(t *testing.T) {
	modes(t, func(t *testing.T, mode string) {
		whole, handshake := session(mode)
		in := slices.Clone(whole.in.Bytes())
		want, err := whole.play(t, nbd.Config{Exports: disk()})
		if err != nil {
			t.Fatal(err)
		}
		slices.Sort(want)
		for _, at := range cuts(handshake, len(in)) {
			said := movedAt(t, mode, in, at)
			if slices.Sort(said); !slices.Equal(said, want) {
				t.Fatalf("moved at %d, it says\n%s\nin place of\n%s", at-handshake, strings.Join(said, "\n"), strings.Join(want, "\n"))
			}
		}
	})
}

// movedAt plays a session on two servers.
func movedAt(t *testing.T, mode string, in []byte, at int) []string {
	t.Helper()
	exports := disk()
	a, b := newServer(t, nbd.Config{Exports: exports}), newServer(t, nbd.Config{Exports: exports})
	server, client := sockets(t)
	over := make(chan error, 1)
	go func() { over <- a.ServeConn(server) }()
	moved, answered := make(chan struct{}), make(chan []byte)
	go func() {
		out, _ := io.ReadAll(client)
		answered <- out
	}()
	go func() {
		_, _ = client.Write(in[:at]) // what is not taken shows in the answers
		<-moved
		_, _ = client.Write(in[at:])
	}()
	for a.Conns() == 0 { // until it has begun, which the server does not announce
		time.Sleep(time.Millisecond)
	}
	move(t, a, b)
	if err := <-over; err != nbd.ErrMoved {
		t.Fatalf("the first server's connection ended with %v", err)
	}
	close(moved)
	tp, _ := session(mode)
	said, err := tp.decode(<-answered)
	if err != nil {
		t.Fatalf("moved at %d: %v after %q", at, err, said)
	}
	return said
}

// What does not end is not moved, and its client is served on. What fails while it is
// moved is repeated.
func TestRequestsUnderWay(t *testing.T) {
	gate := blktest.NewGate(env.Real(), memdev.New(2048))
	exports := nbd.Fixed{{Info: nbd.Info{Name: "disk"}, Device: export.Check(gate)}}
	a, addr := serve(t, nbd.Config{Exports: exports})
	b := newServer(t, nbd.Config{Exports: exports})
	c := dial(t, addr, nbdclient.Options{Export: "disk"})
	write := submit(c, blk.Write, 8, 8)
	held := gate.WaitHeld(1)
	a.Settle(context.Background())
	soon, cancel := context.WithCancelCause(context.Background())
	cancel(errors.New("too late"))
	if list, err := a.Hand(soon, nil); len(list) > 0 || err == nil || !strings.Contains(err.Error(), "has not ended: too late") {
		t.Fatalf("%v, %v", list, err)
	}
	read := submit(c, blk.Read, 0, 8) // a serves on
	held = append(held, gate.WaitHeld(2)[1])
	gate.Release(held[1].Index)
	if st := <-read; st != blk.OK {
		t.Fatal(st)
	}
	a.Settle(context.Background())
	under := &noticing{Context: context.Background(), used: make(chan struct{})}
	moved := make(chan []nbd.Moved)
	go func() {
		list, err := a.Hand(under, nil)
		if err != nil {
			t.Error(err)
		}
		moved <- list
	}()
	<-under.used // it has paused its clients
	gate.Fail(held[0].Index, blk.IOErr)
	list := <-moved
	gate.Open()
	for _, m := range list {
		serve, err := b.Take(m)
		if err != nil {
			t.Fatal(err)
		}
		serve()
	}
	if st := <-write; st != blk.OK {
		t.Error(st)
	}
}

// Connections to some exports are moved, also while a request of another one does not end,
// which are served on.
func TestSomeMove(t *testing.T) {
	gate := blktest.NewGate(env.Real(), memdev.New(2048))
	exports := nbd.Fixed{{Info: nbd.Info{Name: "goes"}, Device: export.Check(memdev.New(2048))}, {Info: nbd.Info{Name: "stays"}, Device: export.Check(gate)}}
	a, addr := serve(t, nbd.Config{Exports: exports})
	b := newServer(t, nbd.Config{Exports: exports})
	goes := dial(t, addr, nbdclient.Options{Export: "goes"})
	stays := dial(t, addr, nbdclient.Options{Export: "stays"})
	write := submit(stays, blk.Write, 8, 8)
	held := gate.WaitHeld(1)
	t.Cleanup(gate.Open)
	a.Settle(context.Background())
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second) // else it waits for what stays
	defer cancel()
	list, err := a.Hand(ctx, func(x *nbd.Export) bool { return x.Name == "goes" })
	if err != nil || len(list) != 1 || list[0].Export != "goes" || a.Conns() != 1 {
		t.Fatalf("%v, %v; %d stay", list, err, a.Conns())
	}
	gate.Release(held[0].Index)
	gate.Open()
	if st := <-write; st != blk.OK {
		t.Error(st)
	}
	run, err := b.Take(list[0])
	if err != nil {
		t.Fatal(err)
	}
	run()
	for _, c := range []*nbdclient.Client{goes, stays} {
		if st := <-submit(c, blk.Read, 0, 8); st != blk.OK {
			t.Error(st)
		}
	}
}

// noticing tells when somebody begins to watch it.
type noticing struct {
	context.Context
	used chan struct{}
	once sync.Once
}

func (n *noticing) Done() <-chan struct{} {
	n.once.Do(func() { close(n.used) })
	return make(chan struct{})
}

// Replies that a client does not take go along.
func TestUnsentRepliesMove(t *testing.T) {
	exports := disk()
	a, addr := serve(t, nbd.Config{Exports: exports})
	b := newServer(t, nbd.Config{Exports: exports})
	d := exports[0].Device
	for i := range uint64(8) {
		if err := blk.WriteSectors(env.Real(), d, blktest.Pattern(i*64, 64, 1), i*64, 0); err != nil {
			t.Fatal(err)
		}
	}
	tp := newTape(proto.FlagFixedNewstyle|proto.FlagNoZeroes).attach("simple", "disk")
	for range 40 {
		tp.request(proto.CmdRead, 0, 0, 512*512)
	}
	nc, err := net.Dial("unix", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	if _, err := nc.Write(tp.in.Bytes()); err != nil {
		t.Fatal(err)
	}
	for a.Conns() == 0 { // until it is accepted, which the server does not announce
		time.Sleep(time.Millisecond)
	}
	move(t, a, b)
	out := make(chan []byte)
	go func() {
		p, _ := io.ReadAll(nc)
		out <- p
	}()
	_ = nc.(*net.UnixConn).CloseWrite()
	p := <-out
	said, err := tp.decode(p)
	if err != nil {
		t.Fatalf("%v in %d bytes", err, len(p))
	}
	reads := said[len(said)-40:]
	for i, line := range reads {
		if strings.Replace(line, fmt.Sprint(i+1), "1", 1) != reads[0] {
			t.Fatalf("%d: %s, first %s", i, line, reads[0])
		}
	}
}

// A client with TLS is relayed to, and its connection can move on.
func TestTLSIsRelayed(t *testing.T) {
	dir, exports := authority(t), disk()
	a, addr := serve(t, nbd.Config{Exports: exports, TLS: serverTLS(t, dir, nbd.TLSRequire, false)})
	c := dial(t, addr, nbdclient.Options{Export: "disk", TLS: clientTLS(t, dir, false)})
	from := a
	for i := range uint64(3) {
		if err := blk.WriteSectors(env.Real(), c, blktest.Pattern(8*i, 8, 1), 8*i, 0); err != nil {
			t.Fatal(err)
		}
		to := newServer(t, nbd.Config{Exports: exports})
		move(t, from, to)
		if n := to.Conns(); n != 1 {
			t.Fatalf("%d connections are served", n)
		}
		from = to
	}
	p := make([]byte, 24*512)
	if err := blk.ReadSectors(env.Real(), c, p, 0); err != nil || blktest.Check(p, 0, 1) != nil {
		t.Fatal(err, blktest.Check(p, 0, 1))
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	a.Relaying()
}

// Clients that are busy, or silent for as long as makes them quiet, or longer, or that leave, notice nothing of servers that
// hand them on all the time.
func TestBusyAndQuietClientsMove(t *testing.T) {
	exports := disk()
	from, addr := serve(t, nbd.Config{Exports: exports})
	used, over := make(chan struct{}), make(chan struct{})
	var clients sync.WaitGroup
	for i := range uint64(12) {
		c := dial(t, addr, nbdclient.Options{Export: "disk"})
		clients.Go(func() { useOnAndOff(t, c, i, used, over) })
	}
	for range 40 {
		for range 24 {
			<-used
		}
		to := newServer(t, nbd.Config{Exports: exports})
		move(t, from, to)
		from = to
	}
	close(over)
	clients.Wait()
}

// useOnAndOff writes and verifies sectors of a client's own, and pauses now and then. One client of four ends early.
func useOnAndOff(t *testing.T, c *nbdclient.Client, i uint64, used, over chan struct{}) {
	chance := rand.New(rand.NewPCG(i, 1))
	p := make([]byte, 8*512)
	for n := uint64(0); i%4 != 3 || n < 50; n++ {
		select {
		case <-over:
			return
		case used <- struct{}{}:
		}
		err := blk.WriteSectors(env.Real(), c, blktest.Pattern(8*i, 8, n), 8*i, 0)
		if err == nil {
			err = blk.ReadSectors(env.Real(), c, p, 8*i)
		}
		if err == nil {
			err = blktest.Check(p, 8*i, n)
		}
		if err != nil {
			t.Errorf("client %d: %v", i, err)
			return
		}
		time.Sleep([]time.Duration{0, time.Millisecond, 5 * time.Millisecond, 9 * time.Millisecond}[chance.IntN(4)]) // its kind of load
	}
	if err := c.Close(); err != nil {
		t.Errorf("client %d: %v", i, err)
	}
}
