package virtq

import (
	"encoding/binary"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// packedOf writes descriptors that are available in the first round.
func (g *guest) packedOf(table ...descriptor) {
	for i, d := range table {
		descriptor{d.addr, d.len, d.next, d.flags | flagAvail}.put(g.rings.Desc, i)
	}
}

func TestHostilePackedRingsBreak(t *testing.T) {
	const size = 6
	all := Features{Indirect: true, Packed: true}
	const tables = ringAt + tablesAt
	for name, c := range map[string]struct {
		f     Features
		ring  []descriptor
		table []descriptor
		want  string
	}{
		"id":               {all, []descriptor{{dataAt, 1, 0, size}}, nil, "the ID 6"},
		"id of a chain":    {all, []descriptor{{dataAt, 1, flagNext, 0}, {dataAt, 1, 0, 65535}}, nil, "the ID 65535"},
		"twice":            {all, []descriptor{{dataAt, 1, 0, 2}, {dataAt, 1, 0, 2}}, nil, "while one is in flight"},
		"endless":          {all, slices.Repeat([]descriptor{{dataAt, 1, flagNext, 0}}, size), nil, "longer than 6"},
		"more than all":    {all, append(slices.Repeat([]descriptor{{dataAt, 1, flagNext, 0}}, size-1), descriptor{dataAt, 1, flagIndirect | flagNext, 0}), nil, "a link behind"},
		"indirect, not so": {Features{Packed: true}, []descriptor{{tables, 16, flagIndirect, 0}}, nil, "not agreed"},
		"indirect of none": {all, []descriptor{{tables, 0, flagIndirect, 0}}, nil, "0 bytes"},
		"indirect, ragged": {all, []descriptor{{tables, 20, flagIndirect, 0}}, nil, "20 bytes"},
		"indirect, nested": {all, []descriptor{{tables, 32, flagIndirect, 0}}, []descriptor{{dataAt, 1, 0, 0}, {tables, 16, flagIndirect, 0}}, "holds another"},
		"indirect, long":   {all, []descriptor{{tables, 16 * (MaxChain + 1), flagIndirect, 0}}, nil, "longer than 1024"},
	} {
		t.Run(name, func(t *testing.T) {
			g := newGuest(t, size, heap)
			q := g.queue(t, size, c.f, 0)
			g.packedOf(c.ring...)
			for i, d := range c.table {
				descriptor{d.addr, d.len, d.next, d.flags}.put(g.ring[tablesAt:], i)
			}
			var ch Chain
			var err error
			for ok := true; ok; {
				ok, err = q.Next(&ch)
			}
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("got %v, want %q", err, c.want)
			}
			if _, again := q.Next(&ch); again == nil || q.Park() {
				t.Errorf("the ring is whole again: %v", again)
			}
		})
	}
}

// More descriptors than the ring has are in flight if a driver gives out some twice.
func TestPackedRingIsBounded(t *testing.T) {
	const size = 2
	g := newGuest(t, size, heap)
	q := g.queue(t, size, Features{Packed: true}, 0)
	var ch Chain
	g.packedOf(descriptor{dataAt, 1, flagNext, 0}, descriptor{dataAt, 1, 0, 0})
	if ok, err := q.Next(&ch); !ok || err != nil {
		t.Fatal(ok, err)
	}
	descriptor{dataAt, 1, 1, flagUsed}.put(g.rings.Desc, 0) // available in the second round
	if _, err := q.Next(&ch); err == nil || !strings.Contains(err.Error(), "more than 2") {
		t.Errorf("got %v", err)
	}
}

// Another queue goes on at any place of the ring, also one that is told to begin with 0.
func TestPackedPositions(t *testing.T) {
	const size = 3
	g := newGuest(t, size, heap)
	f := Features{Packed: true}
	d := g.driver(t, size, f)
	var ch Chain
	next := uint32(0)
	for i := range 4 * size {
		q := g.queue(t, size, f, next)
		if q.Fresh() != (i%(2*size) == 0) {
			t.Fatalf("after %d requests: fresh %v", i, q.Fresh())
		}
		d.Add(nil, []Buf{{dataAt, 8}})
		d.Publish()
		if ok, err := q.Next(&ch); !ok || err != nil {
			t.Fatalf("request %d: %v, %v", i, ok, err)
		}
		q.Put(ch.Head, 0)
		q.Publish()
		if _, _, ok := d.Reap(); !ok {
			t.Fatalf("request %d is lost", i)
		}
		next = q.Position()
	}
	if _, err := NewQueue(Config{Size: size, Features: f, Mem: g.mem, Rings: g.rings, Next: size}); err == nil {
		t.Error("a position outside the ring is taken")
	}
}

// noted is a queue with a record, and what the record should say.
type noted struct {
	t     *testing.T
	seed  uint64
	g     *guest
	mem   []byte
	size  int
	q     *packed
	taken []uint16          // not shown to the driver, in the order in which they were taken
	put   map[uint16]bool   // of those, put back
	bufs  map[uint16]uint64 // address of the first buffer
}

func (n *noted) resume(next uint32) {
	q, err := newPacked(Config{Size: n.size, Features: Features{Packed: true, Indirect: true}, Mem: n.g.mem, Rings: n.g.rings, Next: next, Inflight: n.mem})
	if err != nil {
		n.t.Fatalf("seed %d: %v", n.seed, err)
	}
	if !slices.Equal(q.again, n.taken) {
		n.t.Fatalf("seed %d: %d are begun again, %d were in flight", n.seed, q.again, n.taken)
	}
	n.q = q
	clear(n.put)
}

// take takes a chain, and checks that its buffers are those of the request.
func (n *noted) take() {
	var c Chain
	ok, err := n.q.Next(&c)
	if err != nil {
		n.t.Fatalf("seed %d: %v", n.seed, err)
	}
	if !ok {
		return
	}
	if !slices.Contains(n.taken, c.Head) {
		n.taken = append(n.taken, c.Head)
	}
	if want := n.bufs[c.Head]; c.Err != nil || &c.In[0][0] != &n.g.data[want-dataAt] {
		n.t.Fatalf("seed %d: chain %d has other buffers", n.seed, c.Head)
	}
}

func (n *noted) putBack(r *rand.Rand) {
	var can []uint16
	for _, h := range n.taken {
		if n.q.links[h] > 0 {
			can = append(can, h)
		}
	}
	if len(can) > 0 {
		h := can[r.IntN(len(can))]
		n.q.Put(h, 8)
		n.put[h] = true
	}
}

// publish publishes, and may end in the middle: after the stores to the ring, or before
// these.
func (n *noted) publish(r *rand.Rand) {
	ring := slices.Clone(n.g.rings.Desc[:16*n.size])
	during := slices.Clone(n.mem)
	n.q.shown = func() { copy(during, n.mem) }
	n.q.Publish()
	shown := true
	switch r.IntN(4) {
	case 0: // the record is that of the moment before the heads were cleared
		copy(n.mem, during)
	case 1: // some heads were cleared
		copy(n.mem, during)
		for h := range n.put {
			n.q.notes.entries[h].state = 0
			break
		}
	case 2: // nothing was seen by the driver
		copy(n.mem, during)
		copy(n.g.rings.Desc, ring)
		shown = false
	default:
		n.taken = slices.DeleteFunc(n.taken, func(h uint16) bool { return n.put[h] })
		clear(n.put)
		return
	}
	if shown {
		n.taken = slices.DeleteFunc(n.taken, func(h uint16) bool { return n.put[h] })
	}
	n.resume(r.Uint32())
}

// A device of a packed ring that ends at any moment loses no request and gives none back
// twice, although used elements have taken the place of descriptors.
func TestPackedInflightOverDevices(t *testing.T) {
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 1))
		size := 2 + r.IntN(15)
		f := Features{Packed: true, Indirect: r.IntN(2) == 0}
		g := newGuest(t, 16, heap)
		d := g.driver(t, size, f)
		n := &noted{t: t, seed: seed, g: g, mem: make([]byte, InflightLen(size)), size: size, put: map[uint16]bool{}, bufs: map[uint16]uint64{}}
		n.resume(0)
		added, back := 0, 0
		for range 300 {
			switch r.IntN(6) {
			case 0, 1:
				at := dataAt + 64*r.Uint64N(100)
				bufs := slices.Repeat([]Buf{{at, 8}}, 1+r.IntN(3))
				if head, ok := d.Add(nil, bufs); ok {
					n.bufs[head] = at
					added++
				}
				d.Publish()
			case 2:
				n.take()
			case 3:
				n.putBack(r)
			case 4:
				n.publish(r)
			case 5:
				n.resume(r.Uint32())
			}
			for {
				head, _, ok := d.Reap()
				if !ok {
					break
				}
				if slices.Contains(n.taken, head) {
					t.Fatalf("seed %d: head %d has come back and is in flight", seed, head)
				}
				delete(n.bufs, head)
				back++
			}
		}
		if waiting := len(n.bufs); back+waiting != added {
			t.Fatalf("seed %d: %d of %d came back, %v wait", seed, back, added, slices.Sorted(maps.Keys(n.bufs)))
		}
		for range size { // what waits is there
			n.take()
		}
		if len(n.taken) != len(n.bufs) {
			t.Fatalf("seed %d: %d are in flight, %d wait", seed, n.taken, slices.Sorted(maps.Keys(n.bufs)))
		}
	}
}

// Notes of a packed ring that make no sense break it, or are begun anew, and no more.
func TestForgedPackedNotes(t *testing.T) {
	const size = 8
	r := rand.New(rand.NewPCG(1, 3))
	broken := 0
	for range 2000 {
		g := newGuest(t, size, heap)
		d := g.driver(t, size, Features{Packed: true})
		d.Add(nil, []Buf{{dataAt, 8}})
		d.Publish()
		mem := make([]byte, InflightLen(size))
		for i := range mem {
			mem[i] = byte(r.Uint32())
			if r.IntN(2) == 0 {
				mem[i] &= 3
			}
		}
		binary.LittleEndian.PutUint16(mem[8:], packedVersion)
		binary.LittleEndian.PutUint16(mem[10:], size)
		binary.LittleEndian.PutUint16(mem[12:], uint16(start)+uint16(r.IntN(2))*uint16(r.IntN(9)))
		binary.LittleEndian.PutUint16(mem[14:], uint16(start)+uint16(r.IntN(9)))
		q, err := NewQueue(Config{Size: size, Features: Features{Packed: true}, Mem: g.mem, Rings: g.rings, Inflight: mem})
		if err != nil {
			broken++
			continue
		}
		drain(t, q, size)
	}
	if broken == 0 || broken == 2000 {
		t.Errorf("%d of 2000 are broken", broken)
	}
}
