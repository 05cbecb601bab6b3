package virtq

import (
	"math/rand/v2"
	"testing"
)

// A driver and a device that do anything at any time, against a model: every
// request reaches the device once, with its buffers, and comes back once; and
// when both sides wait to be told, nothing is left to do.
func TestRandomDriverAgainstModel(t *testing.T) {
	for seed := range uint64(400) {
		r := rand.New(rand.NewPCG(seed, 7))
		f := Features{EventIdx: r.IntN(2) == 0, Indirect: r.IntN(2) == 0, Packed: seed%2 == 1}
		size := 1 << r.IntN(7)
		if f.Packed && r.IntN(2) == 0 {
			size = 1 + r.IntN(70)
		}
		g := newGuest(t, 128, heap)
		m := &model{t: t, r: r, g: g, f: f, size: size, seed: seed, sent: make(map[uint16][]Buf), d: g.driver(t, size, f)}
		m.q = g.queue(t, size, f, 0)
		for range 2000 {
			m.step()
		}
		m.finish()
	}
}

type model struct {
	t    *testing.T
	r    *rand.Rand
	g    *guest
	f    Features
	size int
	seed uint64
	d    Driver
	q    Queue

	sent    map[uint16][]Buf // what the driver waits for
	taken   []uint16         // what the device has
	back    []uint16         // what it has put back, in order
	asleep  bool             // the device waits for a kick
	waiting bool             // the driver waits to be told
	ch      Chain

	// Numbers of requests: added, and shown to the device; taken, put back, and shown to
	// the driver; ended.
	added, shown, got, put, told, ended int
}

func (m *model) step() {
	switch m.r.IntN(9) {
	case 0, 1:
		m.add()
	case 2:
		m.shown = m.added
		if m.d.Publish() {
			m.wake()
		}
	case 3:
		m.take()
	case 4:
		m.putBack()
	case 5:
		m.told = m.put
		if m.q.Publish() {
			m.waiting = false
		}
	case 6:
		m.reap()
	case 7:
		m.sleep()
	case 8:
		m.restart()
	}
	m.check()
}

func (m *model) wake() {
	if m.asleep {
		m.asleep = false
		m.q.Unpark()
	}
}

func (m *model) add() {
	bufs := make([]Buf, 1+m.r.IntN(9))
	for i := range bufs {
		bufs[i].Len = 1 + m.r.Uint32N(600)
		bufs[i].Addr = dataAt + m.r.Uint64N(dataLen-600)
	}
	out := m.r.IntN(len(bufs) + 1)
	if head, ok := m.d.Add(bufs[:out], bufs[out:]); ok {
		if m.sent[head] != nil {
			m.t.Fatalf("seed %d: head %d is used twice", m.seed, head)
		}
		m.sent[head] = bufs
		m.added++
	}
}

// take is what a device does that is awake.
func (m *model) take() {
	if m.asleep {
		return
	}
	if m.r.IntN(16) == 0 {
		m.move()
	}
	ok, err := m.q.Next(&m.ch)
	if err != nil || m.ch.Err != nil {
		m.t.Fatalf("seed %d: %v, %v", m.seed, err, m.ch.Err)
	}
	if ok != (m.got < m.shown) {
		m.t.Fatalf("seed %d: of %d requests %d were taken, and now another one: %v", m.seed, m.shown, m.got, ok)
	}
	if !ok {
		return
	}
	m.got++
	m.compare()
	m.taken = append(m.taken, m.ch.Head)
}

// compare checks the chain: its buffers are the memory that was sent.
func (m *model) compare() {
	var want, got [][]byte
	for _, b := range m.sent[m.ch.Head] {
		want = append(want, m.g.data[b.Addr-dataAt:][:b.Len])
	}
	got = append(append(got, m.ch.Out...), m.ch.In...)
	n := 0
	for _, p := range want {
		for len(p) > 0 {
			if n == len(got) || &got[n][0] != &p[0] || len(got[n]) > len(p) {
				m.t.Fatalf("seed %d: chain %d has other buffers", m.seed, m.ch.Head)
			}
			p = p[len(got[n]):]
			n++
		}
	}
	if n != len(got) || n == 0 {
		m.t.Fatalf("seed %d: chain %d has %d buffers of %d", m.seed, m.ch.Head, n, len(got))
	}
}

// move is another table of the same memory.
func (m *model) move() {
	rs := m.g.regions()
	if m.r.IntN(2) == 0 {
		rs = []Region{rs[1], {Guest: dataAt, User: 4096, Mem: m.g.data}}
	}
	mem, err := NewTable(rs...)
	if err == nil {
		err = m.q.Move(mem, m.g.rings)
	}
	if err != nil {
		m.t.Fatal(err)
	}
}

func (m *model) putBack() {
	if len(m.taken) == 0 {
		return
	}
	i := m.r.IntN(len(m.taken))
	head := m.taken[i]
	m.taken = append(m.taken[:i], m.taken[i+1:]...)
	m.q.Put(head, uint32(head)+uint32(m.put))
	m.back = append(m.back, head)
	m.put++
}

func (m *model) reap() {
	head, written, ok := m.d.Reap()
	if ok != (m.ended < m.told) {
		m.t.Fatalf("seed %d: of %d requests %d were reaped, and now another one: %v", m.seed, m.told, m.ended, ok)
	}
	if !ok {
		return
	}
	if head != m.back[0] || written != uint32(head)+uint32(m.ended) || m.sent[head] == nil {
		m.t.Fatalf("seed %d: head %d came back with %d", m.seed, head, written)
	}
	m.ended++
	m.back = m.back[1:]
	delete(m.sent, head)
}

func (m *model) sleep() {
	if m.r.IntN(2) == 0 {
		m.waiting = m.d.Park()
	} else if !m.asleep {
		if m.asleep = m.q.Park(); !m.asleep {
			m.q.Unpark()
		}
	}
}

// restart has another queue go on, when nothing is in flight.
func (m *model) restart() {
	if m.put != m.got || m.told != m.put {
		return
	}
	m.q = m.g.queue(m.t, m.size, m.f, m.q.Position())
	m.asleep = false
}

// check checks that nobody sleeps who has something to do.
func (m *model) check() {
	if m.asleep && m.shown != m.got {
		m.t.Fatalf("seed %d: the device sleeps while requests are available", m.seed)
	}
	if m.waiting && m.told != m.ended {
		m.t.Fatalf("seed %d: the driver waits for what is there", m.seed)
	}
	if n := m.got - m.put; m.q.InFlight() != n {
		m.t.Fatalf("seed %d: %d in flight, want %d", m.seed, m.q.InFlight(), n)
	}
}

// finish ends what is under way.
func (m *model) finish() {
	m.asleep = false
	m.d.Publish()
	m.shown = m.added
	for m.got < m.shown {
		m.take()
	}
	for len(m.taken) > 0 {
		m.putBack()
	}
	m.q.Publish()
	m.told = m.put
	for len(m.back) > 0 {
		m.reap()
	}
	if m.reap(); len(m.sent) != 0 || m.d.Free() != m.size || m.q.InFlight() != 0 {
		m.t.Fatalf("seed %d: %d requests are lost", m.seed, len(m.sent))
	}
}
