//go:build unix

package virtq

import (
	"encoding/binary"
	"testing"

	"golang.org/x/sys/unix"
)

// mapped is memory as guests have it. The race detector does not look at it, for
// which the two sides of a ring are two programs.
func mapped(t testing.TB) func(n int) []byte {
	return func(n int) []byte {
		p, err := unix.Mmap(-1, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_SHARED)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Munmap(p) })
		return p
	}
}

// ring wakes, as an eventfd does.
func ring(bell chan struct{}) {
	select {
	case bell <- struct{}{}:
	default:
	}
}

// device answers each request with its number, doubled, until the bell is closed.
func device(q Queue, kick, call chan struct{}) error {
	var c Chain
	for {
		ok, err := q.Next(&c)
		if err != nil {
			return err
		}
		if ok {
			n := binary.LittleEndian.Uint64(c.Out[0])
			binary.LittleEndian.PutUint64(c.In[0], 2*n)
			q.Put(c.Head, 8)
			if q.InFlight() == 0 && n%3 != 0 {
				continue
			}
		}
		if q.Publish() {
			ring(call)
		}
		if !ok && q.Park() {
			if _, open := <-kick; !open {
				return nil
			}
			q.Unpark()
		}
	}
}

// client has up to depth requests under way until n are answered.
func client(t *testing.T, g *guest, d Driver, depth, n int, kick, call chan struct{}) {
	slots := make([]int, depth)
	for i := range slots {
		slots[i] = i
	}
	slot := make(map[uint16]int)
	for sent, got := 0, 0; got < n; {
		for sent < n && len(slots) > 0 {
			s := slots[len(slots)-1]
			at := dataAt + 16*uint64(s)
			head, ok := d.Add([]Buf{{at, 8}}, []Buf{{at + 8, 8}})
			if !ok {
				break
			}
			binary.LittleEndian.PutUint64(g.data[16*s:], uint64(sent))
			slot[head], slots = s, slots[:len(slots)-1]
			sent++
		}
		if d.Publish() {
			ring(kick)
		}
		head, written, ok := d.Reap()
		if !ok {
			if d.Park() {
				<-call
			}
			continue
		}
		s := slot[head]
		if a, b := binary.LittleEndian.Uint64(g.data[16*s:]), binary.LittleEndian.Uint64(g.data[16*s+8:]); written != 8 || b != 2*a {
			t.Fatalf("request %d: %d bytes, answer %d", a, written, b)
		}
		slots = append(slots, s)
		got++
	}
}

// Two threads at their own speeds: nobody waits for ever.
func TestTwoSidesAtOnce(t *testing.T) {
	for _, f := range []Features{{}, {EventIdx: true}, {EventIdx: true, Indirect: true}, {Packed: true}, {Packed: true, EventIdx: true, Indirect: true}} {
		for _, depth := range []int{1, 3, 64} {
			g := newGuest(t, 64, mapped(t))
			d := g.driver(t, 64, f)
			q := g.queue(t, 64, f, 0)
			kick, call, done := make(chan struct{}, 1), make(chan struct{}, 1), make(chan error)
			go func() { done <- device(q, kick, call) }()
			client(t, g, d, depth, 20000, kick, call)
			close(kick)
			if err := <-done; err != nil {
				t.Fatal(err)
			}
		}
	}
}

func BenchmarkRequest(b *testing.B) {
	for name, f := range map[string]Features{"flags": {}, "event": {EventIdx: true}, "indirect": {EventIdx: true, Indirect: true}, "packed": {EventIdx: true, Packed: true}, "packed, indirect": {EventIdx: true, Indirect: true, Packed: true}} {
		b.Run(name, func(b *testing.B) { benchmark(b, f) })
	}
}

// benchmark is a request of three buffers through both sides, 16 at a time.
func benchmark(b *testing.B, f Features) {
	round := newRound(b, f)
	b.ReportAllocs()
	for i := 0; i < b.N; i += 16 {
		round()
	}
}

func newRound(t testing.TB, f Features) func() {
	g := newGuest(t, 256, mapped(t))
	d := g.driver(t, 256, f)
	q := g.queue(t, 256, f, 0)
	out, in := []Buf{{dataAt, 16}}, []Buf{{dataAt + 4096, 4096}, {dataAt + 16, 1}}
	var c Chain
	return func() {
		for range 16 {
			d.Add(out, in)
		}
		d.Publish()
		for {
			ok, err := q.Next(&c)
			if err != nil || c.Err != nil {
				t.Fatal(err, c.Err)
			}
			if !ok {
				break
			}
			q.Put(c.Head, 4097)
		}
		q.Publish()
		for range 16 {
			if _, _, ok := d.Reap(); !ok {
				t.Fatal("a request is lost")
			}
		}
	}
}

func TestRequestsDoNotAllocate(t *testing.T) {
	for _, f := range []Features{{}, {EventIdx: true, Indirect: true}, {Packed: true}, {EventIdx: true, Indirect: true, Packed: true}} {
		if n := testing.AllocsPerRun(100, newRound(t, f)); n != 0 {
			t.Errorf("%+v: %v allocations", f, n)
		}
	}
}
