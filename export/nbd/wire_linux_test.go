package nbd

import (
	"bytes"
	"errors"
	"io"
	"net"
	"runtime"
	"sync"
	"testing"
	"time"
)

// wired is a sock with its client.
type wired struct {
	*sock
	t      *testing.T
	client *net.UnixConn
}

// newWired returns a sock whose client may be silent inside a request for some time.
func newWired(t *testing.T, stall time.Duration) wired {
	t.Helper()
	p := &poller{running: new(sync.WaitGroup)}
	w := newWiredAt(t, p, stall)
	t.Cleanup(func() {
		w.close()
		p.running.Wait()
	})
	return w
}

func newWiredAt(t *testing.T, p *poller, stall time.Duration) wired {
	t.Helper()
	client, theirs, err := pair()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	nc, err := net.FileConn(theirs)
	if err != nil {
		t.Fatal(err)
	}
	theirs.Close()
	return wired{newSock(nc, stall, p).(*sock), t, client}
}

// waits returns when somebody waits at the poller for some events.
func (w wired) waits(events uint32) {
	for {
		w.mu.Lock()
		there := w.awaited&events == events
		w.mu.Unlock()
		if there {
			return
		}
		runtime.Gosched()
	}
}

// received is what a read has returned.
type received struct {
	text string
	err  error
}

func (w wired) receive(inside bool) <-chan received {
	over := make(chan received, 1)
	go func() {
		p := make([]byte, 8)
		n, err := w.read(p, inside)
		over <- received{string(p[:n]), err}
	}()
	return over
}

func (w wired) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w wired) says(text string) {
	w.t.Helper()
	_, err := w.client.Write([]byte(text))
	w.must(err)
}

// happenings are what ends a read, and what it then returns.
var happenings = map[string]struct {
	happens func(wired)
	want    received
}{
	"bytes":      {func(w wired) { w.says("x") }, received{"x", nil}},
	"the end":    {func(w wired) { w.must(w.client.Close()) }, received{"", io.EOF}},
	"half":       {func(w wired) { w.must(w.client.CloseWrite()) }, received{"", io.EOF}},
	"a pause":    {func(w wired) { w.pause() }, received{"", errPaused}},
	"a shutdown": {func(w wired) { w.closeRead() }, received{"", io.EOF}},
	"an abort":   {func(w wired) { w.abort() }, received{"", io.EOF}},
}

// What ends a read ends it before it begins, while its thread waits in recv, as it goes to the poller and
// while it waits there, between requests and inside one.
func TestWhatEndsARead(t *testing.T) {
	orders := map[string]func(w wired, inside bool, happens func(wired)) received{
		"before": func(w wired, inside bool, happens func(wired)) received {
			happens(w)
			return <-w.receive(inside)
		},
		"busy": func(w wired, inside bool, happens func(wired)) received {
			w.quiet = false
			over := w.receive(inside)
			happens(w)
			return <-over
		},
		"going": func(w wired, _ bool, happens func(wired)) received {
			happens(w)
			w.await(&w.in, inEvents, 0) // it had found nothing just before
			return <-w.receive(false)
		},
		"at the poller": func(w wired, inside bool, happens func(wired)) received {
			over := w.receive(inside)
			w.waits(inEvents)
			happens(w)
			return <-over
		},
		"busy, then at the poller": func(w wired, inside bool, happens func(wired)) received {
			w.quiet = false
			over := w.receive(inside)
			w.waits(inEvents)
			happens(w)
			return <-over
		},
	}
	for order, read := range orders {
		for what, h := range happenings {
			for _, inside := range []bool{false, true} {
				if got := read(newWired(t, time.Hour), inside, h.happens); got != h.want {
					t.Errorf("%s, %s, inside a request %v: %q, %v", what, order, inside, got.text, got.err)
				}
			}
		}
	}
}

// Nothing is lost when a pause is called off, or when who waited at the poller has gone.
func TestReadsAfterAPause(t *testing.T) {
	w := newWired(t, time.Hour)
	for range 100 {
		over := w.receive(false)
		w.pause()
		w.says("x")
		first := <-over
		w.goOn()
		if errors.Is(first.err, errPaused) {
			first = <-w.receive(false)
		}
		if first != (received{"x", nil}) {
			t.Fatalf("%q, %v", first.text, first.err)
		}
	}
}

// A client that is silent inside a request has stalled, whether it was busy or not.
func TestStallsInside(t *testing.T) {
	for _, quiet := range []bool{true, false} {
		w := newWired(t, time.Millisecond)
		w.quiet = quiet
		if got := <-w.receive(true); got.err != errStalled {
			t.Errorf("quiet %v: %v", quiet, got.err)
		}
	}
}

// sent is what a write has returned.
type sent struct {
	rest int
	err  error
}

// send writes more than the socket takes.
func (w wired) send(p []byte) <-chan sent {
	over := make(chan sent, 1)
	go func() {
		rest, err := w.write([][]byte{p})
		n := 0
		for _, r := range rest {
			n += len(r)
		}
		over <- sent{n, err}
	}()
	return over
}

// A sender to a client that does not read waits at the poller, with a reader beside it, until the client reads, a pause,
// the end or the stall timeout.
func TestWhatEndsAWrite(t *testing.T) {
	big := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	t.Run("the client reads", func(t *testing.T) {
		w := newWired(t, time.Hour)
		reads, writes := w.receive(false), w.send(big)
		w.waits(inEvents | outEvents)
		p := make([]byte, len(big))
		_, err := io.ReadFull(w.client, p)
		if got := <-writes; got != (sent{}) || err != nil || !bytes.Equal(p, big) {
			t.Errorf("%+v, %v", got, err)
		}
		w.says("x") // the reader is watched still
		if got := <-reads; got.text != "x" {
			t.Errorf("%q, %v", got.text, got.err)
		}
	})
	t.Run("a pause", func(t *testing.T) {
		w := newWired(t, time.Hour)
		writes := w.send(big)
		w.waits(outEvents)
		w.pause()
		got := <-writes
		taken := make([]byte, len(big)-got.rest)
		_, err := io.ReadFull(w.client, taken)
		if got.rest == 0 || got.err != nil || err != nil || !bytes.Equal(taken, big[:len(taken)]) {
			t.Errorf("%+v, %v", got, err)
		}
		if rest, err := w.tryWrite([][]byte{big}); len(rest) != 1 || err != nil {
			t.Errorf("it is sent after a rest: %v", err)
		}
	})
	for what, happens := range map[string]func(wired){"the end": func(w wired) { w.must(w.client.Close()) }, "an abort": func(w wired) { w.abort() }} {
		t.Run(what, func(t *testing.T) {
			w := newWired(t, time.Hour)
			writes := w.send(big)
			w.waits(outEvents)
			happens(w)
			if got := <-writes; got.err == nil {
				t.Errorf("%+v", got)
			}
		})
	}
	t.Run("a stall", func(t *testing.T) {
		if got := <-newWired(t, time.Millisecond).send(big); got.err != errStalled {
			t.Errorf("%+v", got)
		}
	})
}

// A socket that has gone to another process is not watched here any more. The poller ends with its last socket, and begins
// again with another one.
func TestPollerEnds(t *testing.T) {
	p := &poller{running: new(sync.WaitGroup)}
	for range 2 {
		goes, stays := newWiredAt(t, p, time.Hour), newWiredAt(t, p, time.Hour)
		over := goes.receive(false)
		goes.waits(inEvents)
		goes.pause()
		if got := <-over; got.err != errPaused {
			t.Fatal(got.err)
		}
		goes.must(goes.detach().Close())
		if len(p.socks) != 1 || p.socks[stays.id] != stays.sock {
			t.Fatalf("%d sockets are watched", len(p.socks))
		}
		stays.close()
		p.running.Wait()
	}
}
