package virtq

import (
	"encoding/binary"
	"errors"
	"strings"
	"testing"
)

// guest is a guest's memory with a ring at its beginning, in two regions with a
// hole between them and one that follows the second.
type guest struct {
	mem   *Table
	rings Rings
	ring  []byte // region 0: rings and indirect tables
	data  []byte // regions 1 and 2, which are adjacent
}

const (
	ringAt   = 0x10000
	ringLen  = 1 << 18
	tablesAt = 1 << 16 // in ring
	dataAt   = 0x100000
	dataLen  = 1 << 18
	userAt   = 0x7f0000000000
)

func newGuest(t testing.TB, size int, alloc func(n int) []byte) *guest {
	g := &guest{ring: alloc(ringLen), data: alloc(dataLen)}
	avail := DescLen(size)
	used := (avail + AvailLen(size) + 3) &^ 3
	g.rings = Rings{g.ring, g.ring[avail:], g.ring[used:]}
	var err error
	if g.mem, err = NewTable(g.regions()...); err != nil {
		t.Fatal(err)
	}
	return g
}

func heap(n int) []byte { return make([]byte, n) }

func (g *guest) regions() []Region {
	return []Region{
		{Guest: dataAt + dataLen/2, User: userAt, Mem: g.data[dataLen/2:], Fixed: true},
		{Guest: ringAt, User: userAt + 1<<30, Mem: g.ring, Fixed: true},
		{Guest: dataAt, User: userAt + 2<<30, Mem: g.data[:dataLen/2]},
	}
}

func (g *guest) queue(t testing.TB, size int, f Features, next uint32) Queue {
	t.Helper()
	q, err := NewQueue(Config{Size: size, Features: f, Mem: g.mem, Rings: g.rings, Next: next})
	if err != nil {
		t.Fatal(err)
	}
	return q
}

func (g *guest) driver(t testing.TB, size int, f Features) Driver {
	d, err := NewDriver(size, f, g.rings, g.ring[tablesAt:tablesAt+16*8*size], ringAt+tablesAt)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestTableRefusesRegions(t *testing.T) {
	m := make([]byte, 64)
	for name, rs := range map[string][]Region{
		"empty":         {{Guest: 0, User: 0}},
		"wraps":         {{Guest: 1<<64 - 32, User: 0, Mem: m}},
		"user wraps":    {{Guest: 0, User: 1<<64 - 63, Mem: m}},
		"overlaps":      {{Guest: 0, User: 0, Mem: m}, {Guest: 63, User: 100, Mem: m}},
		"user overlaps": {{Guest: 100, User: 32, Mem: m}, {Guest: 0, User: 0, Mem: m}},
		"twice":         {{Guest: 0, User: 0, Mem: m}, {Guest: 0, User: 0, Mem: m}},
	} {
		if _, err := NewTable(rs...); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

func TestTableTranslates(t *testing.T) {
	g := newGuest(t, 4, heap)
	for _, c := range []struct {
		addr, n uint64
		want    []byte
	}{
		{dataAt, 4, g.data[:4]},
		{dataAt + dataLen/2 - 4, 4, g.data[dataLen/2-4:][:4]},
		{dataAt + dataLen/2 - 4, 5, nil}, // two regions
		{dataAt + dataLen - 1, 1, g.data[dataLen-1:]},
		{dataAt + dataLen - 1, 2, nil},
		{dataAt + dataLen, 1, nil},
		{dataAt - 1, 1, nil},
		{0, 1, nil},
		{1<<64 - 1, 1 << 63, nil},
		{dataAt, 1<<64 - 1, nil},
	} {
		if got := g.mem.Guest(c.addr, c.n); len(got) != len(c.want) || len(got) > 0 && &got[0] != &c.want[0] {
			t.Errorf("%#x+%d: %d bytes", c.addr, c.n, len(got))
		}
	}
	if p := g.mem.User(userAt+1<<30+8, 8); &p[0] != &g.ring[8] || len(p) != 8 || cap(p) != 8 {
		t.Error("the wrong bytes by user address")
	}
	for _, a := range [][2]uint64{{userAt - 1, 1}, {userAt + 1<<30, ringLen + 1}, {0, 0}, {userAt + 1, 1<<64 - 1}} {
		if g.mem.User(a[0], a[1]) != nil {
			t.Errorf("%#x+%d is memory", a[0], a[1])
		}
	}
}

func TestRingsAreChecked(t *testing.T) {
	m := make([]byte, 1<<20)
	good := Rings{m, m[64:], m[80:]}
	for name, c := range map[string]struct {
		size int
		r    Rings
	}{
		"size 0":        {0, good},
		"size 3":        {3, good},
		"size 65536":    {65536, Rings{m, m, m}},
		"descriptors":   {4, Rings{m[8:], m[128:], m[256:]}},
		"avail is odd":  {4, Rings{m, m[65:], m[80:]}},
		"used at 2":     {4, Rings{m, m[64:], m[82:]}},
		"short used":    {4, Rings{m, m[64:], m[80 : 80+37]}},
		"short avail":   {4, Rings{m, m[64 : 64+13], m[80:]}},
		"nil":           {4, Rings{}},
		"avail in desc": {4, Rings{m, m[60:], m[80:]}},
		"used in avail": {4, Rings{m, m[64:], m[76:]}},
	} {
		if _, err := NewQueue(Config{Size: c.size, Rings: c.r}); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	if _, err := NewQueue(Config{Size: 4, Rings: good}); err != nil {
		t.Error(err)
	}
}

// ring writes descriptors into the table, and their heads into avail.
func (g *guest) ringOf(table []descriptor, heads ...uint16) {
	for i, d := range table {
		d.put(g.rings.Desc, i)
	}
	for i, h := range heads {
		binary.LittleEndian.PutUint16(g.rings.Avail[4+2*i:], h)
	}
	binary.LittleEndian.PutUint16(g.rings.Avail[2:], uint16(len(heads)))
}

func TestHostileRingsBreak(t *testing.T) {
	const size = 8
	all := Features{Indirect: true}
	ok := descriptor{dataAt, 512, 0, 0}
	loop := descriptor{dataAt, 512, flagNext, 0}
	tableAt := func(at uint64, n uint32) descriptor { return descriptor{at, n, flagIndirect, 0} }
	inTable := func(ds ...descriptor) func(*guest) {
		return func(g *guest) {
			for i, d := range ds {
				d.put(g.ring[tablesAt:], i)
			}
		}
	}
	const tables = ringAt + tablesAt
	for name, c := range map[string]struct {
		f     Features
		table []descriptor
		heads []uint16
		more  func(*guest)
		want  string
	}{
		"index too far":       {all, nil, nil, func(g *guest) { g.rings.Avail[2] = size + 1 }, "9 entries are available"},
		"index behind":        {all, nil, nil, func(g *guest) { copy(g.rings.Avail[2:], "\xff\xff") }, "65535 entries"},
		"head":                {all, nil, []uint16{size}, nil, "begins at descriptor 8"},
		"head 65535":          {all, nil, []uint16{65535}, nil, "begins at descriptor"},
		"twice":               {all, []descriptor{ok}, []uint16{0, 0}, nil, "while it is in flight"},
		"link":                {all, []descriptor{{dataAt, 1, flagNext, size}}, []uint16{0}, nil, "a link to descriptor 8 of 8"},
		"loop":                {all, []descriptor{loop}, []uint16{0}, nil, "a loop"},
		"loop of two":         {all, []descriptor{{dataAt, 1, flagNext, 1}, loop}, []uint16{1}, nil, "a loop"},
		"indirect, not so":    {Features{}, []descriptor{tableAt(tables, 16)}, []uint16{0}, nil, "not agreed"},
		"indirect of none":    {all, []descriptor{tableAt(tables, 0)}, []uint16{0}, nil, "0 bytes"},
		"indirect, ragged":    {all, []descriptor{tableAt(tables, 24)}, []uint16{0}, nil, "24 bytes"},
		"indirect, huge":      {all, []descriptor{tableAt(tables, 1<<32-16)}, []uint16{0}, nil, "4294967280 bytes"},
		"indirect in a hole":  {all, []descriptor{tableAt(0, 16)}, []uint16{0}, nil, "not in one region"},
		"indirect over two":   {all, []descriptor{tableAt(dataAt+dataLen/2-16, 32)}, []uint16{0}, nil, "not in one region"},
		"indirect and link":   {all, []descriptor{{tables, 16, flagIndirect | flagNext, 1}, ok}, []uint16{0}, nil, "a link behind"},
		"indirect twice":      {all, []descriptor{tableAt(tables, 16)}, []uint16{0}, inTable(tableAt(tables, 16)), "holds another"},
		"indirect later":      {all, []descriptor{tableAt(tables, 32)}, []uint16{0}, inTable(descriptor{dataAt, 1, flagNext, 1}, tableAt(tables, 16)), "holds another"},
		"indirect, link":      {all, []descriptor{tableAt(tables, 16)}, []uint16{0}, inTable(descriptor{dataAt, 1, flagNext, 1}), "a loop, or longer"},
		"indirect, wild link": {all, []descriptor{tableAt(tables, 32)}, []uint16{0}, inTable(descriptor{dataAt, 1, flagNext, 9}), "a link to descriptor 9 of 2"},
		"indirect, loop":      {all, []descriptor{tableAt(tables, 1<<15)}, []uint16{0}, inTable(loop), "longer than 1024"},
	} {
		t.Run(name, func(t *testing.T) {
			g := newGuest(t, size, heap)
			g.ringOf(c.table, c.heads...)
			if c.more != nil {
				c.more(g)
			}
			q := g.queue(t, size, c.f, 0)
			var ch Chain
			var err error
			for ok := true; ok; {
				ok, err = q.Next(&ch)
			}
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("got %v, want %q", err, c.want)
			}
			if _, again := q.Next(&ch); again == nil || again.Error() != err.Error() || q.Park() {
				t.Errorf("the ring is whole again: %v", again)
			}
		})
	}
}

func TestFaultyChainsComeBack(t *testing.T) {
	const size = 8
	status := descriptor{dataAt + 9, 1, flagWrite, 0}
	for name, c := range map[string]struct {
		first  descriptor
		want   error
		status bool
	}{
		"good":             {descriptor{dataAt, 16, 0, 0}, nil, true},
		"over two regions": {descriptor{dataAt + dataLen/2 - 8, 16, 0, 0}, nil, true},
		"empty":            {descriptor{dataAt, 0, 0, 0}, errEmpty, true},
		"hole":             {descriptor{0, 16, flagWrite, 0}, errHole, true},
		"runs into a hole": {descriptor{dataAt + dataLen - 8, 16, flagWrite, 0}, errHole, true},
		"wraps":            {descriptor{1<<64 - 8, 16, 0, 0}, errHole, true},
		"4 GiB":            {descriptor{dataAt, 1<<32 - 1, flagWrite, 0}, errHole, true},
	} {
		g := newGuest(t, size, heap)
		c.first.flags, c.first.next = c.first.flags|flagNext, 1
		g.ringOf([]descriptor{c.first, status}, 0)
		q := g.queue(t, size, Features{}, 0)
		var ch Chain
		if ok, err := q.Next(&ch); !ok || err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if !errors.Is(ch.Err, c.want) {
			t.Errorf("%s: %v", name, ch.Err)
		}
		if len(ch.In) != 1 || &ch.In[0][0] != &g.data[9] {
			t.Errorf("%s: the last byte is lost", name)
		}
		if ch.Bytes != uint64(c.first.len)+1 {
			t.Errorf("%s: %d bytes", name, ch.Bytes)
		}
		q.Put(ch.Head, 1)
		if !q.Publish() || binary.LittleEndian.Uint16(g.rings.Used[2:]) != 1 {
			t.Errorf("%s: the driver is not told", name)
		}
	}
	// What is to be read behind what is to be written has no status.
	g := newGuest(t, size, heap)
	status.flags, status.next = flagWrite|flagNext, 1
	g.ringOf([]descriptor{status, {dataAt, 16, 0, 0}}, 0)
	var ch Chain
	if ok, err := g.queue(t, size, Features{}, 0).Next(&ch); !ok || err != nil || ch.Err != errOrder || len(ch.In) != 0 {
		t.Errorf("order: %v, %v, %d", err, ch.Err, len(ch.In))
	}
}

// A driver may put an indirect table behind descriptors of the ring.
func TestIndirectTableEndsAChain(t *testing.T) {
	g := newGuest(t, 8, heap)
	g.ringOf([]descriptor{{dataAt, 16, flagNext, 1}, {ringAt + tablesAt, 32, flagIndirect, 0}}, 0)
	descriptor{dataAt + 16, 8, flagNext | flagWrite, 1}.put(g.ring[tablesAt:], 0)
	descriptor{dataAt + 24, 1, flagWrite, 0}.put(g.ring[tablesAt:], 1)
	var ch Chain
	if ok, err := g.queue(t, 8, Features{Indirect: true}, 0).Next(&ch); !ok || err != nil || ch.Err != nil || len(ch.Out) != 1 || len(ch.In) != 2 || ch.Bytes != 25 {
		t.Fatalf("%v, %+v", err, ch)
	}
}

// A piece of the store of avail_event must not reach what follows the ring.
func TestNothingIsWrittenBehindTheRing(t *testing.T) {
	const size = 4
	g := newGuest(t, size, heap)
	behind := g.rings.Used[UsedLen(size):][:8]
	copy(behind, "foreign!")
	g.ringOf([]descriptor{{dataAt, 1, 0, 0}}, 0)
	q := g.queue(t, size, Features{EventIdx: true}, 0)
	q.Park()
	var ch Chain
	q.Next(&ch)
	q.Put(ch.Head, 0)
	q.Publish()
	q.Park()
	if string(behind) != "foreign!" {
		t.Errorf("%q", behind)
	}
	if ev := binary.LittleEndian.Uint16(g.rings.Used[UsedLen(size)-2:]); ev != 1 {
		t.Errorf("avail_event is %d", ev)
	}
}

func TestMoveNeedsTheRing(t *testing.T) {
	g := newGuest(t, 4, heap)
	q := g.queue(t, 4, Features{}, 0)
	if err := q.Move(g.mem, g.rings); err != nil {
		t.Fatal(err)
	}
	if q.Move(g.mem, Rings{g.ring, nil, g.ring[512:]}) == nil {
		t.Fatal("a ring without avail")
	}
	if _, err := q.Next(&Chain{}); err == nil {
		t.Error("it works on")
	}
}
