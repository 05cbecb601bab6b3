package virtq

import (
	"encoding/binary"
	"sync/atomic"
	"unsafe"
)

// The flags of a packed descriptor beside those of a split one, and the event areas: a
// position 2, flags 2.
const (
	flagAvail = 1 << 7
	flagUsed  = 1 << 15

	eventLen     = 4
	eventEnable  = 0
	eventDisable = 1
	eventAt      = 2 // at the position; with EVENT_IDX only
)

// position is a place in a packed ring: the index of a descriptor, and in bit 15 the wrap
// counter. Rings have at most 32768 entries.
type position uint16

const (
	wrapBit          = 1 << 15
	start   position = wrapBit // where drivers and devices begin
)

func (p position) index() int { return int(p &^ wrapBit) }

// plus is n descriptors further in a ring of size entries; n is at most size.
func (p position) plus(n, size int) position {
	if n += p.index(); n >= size {
		return position(n-size) | ^p&wrapBit
	}
	return position(n) | p&wrapBit
}

// available and used are the flags of a descriptor at p that is available, and that is used.
func (p position) available() uint16 {
	if p&wrapBit != 0 {
		return flagAvail
	}
	return flagUsed
}

func (p position) used() uint16 {
	if p&wrapBit != 0 {
		return flagAvail | flagUsed
	}
	return 0
}

// wanted reports whether the other side, whose event area holds event, wants to be told that
// n descriptors up to p have changed.
func (p position) wanted(event uint32, n, size int) bool {
	switch event >> 16 & 3 {
	case eventEnable:
		return true
	case eventDisable:
		return false
	}
	e := position(event)
	at := e.index()
	if (e^p)&wrapBit != 0 {
		at -= size
	}
	return passed(uint16(at), uint16(p.index()-n), uint16(p.index()))
}

// word is the aligned word of a descriptor that holds its id and, above that, its flags.
func word(desc []byte, i int) *uint32 { return (*uint32)(unsafe.Pointer(&desc[16*i+12])) }

func event(area []byte) *uint32 { return (*uint32)(unsafe.Pointer(&area[0])) }

// packed is the device's side of a packed ring. The head of a chain is its buffer ID.
//
// A driver may use an ID again, and the place of a chain in the ring, as soon as the device
// has used as many descriptors as the chain has; not necessarily these.
type packed struct {
	core
	next  position // the first descriptor not taken
	used  position // where the next used element goes
	links []uint16 // by head: number of ring descriptors of its chain; 0: it was not taken, or was put back
	held  int      // ring descriptors of chains in flight, or in batch
	batch []putBack
	asked uint32 // the device's event area; more than it can hold: unknown
	descs []descriptor

	notes   *packedNotes // nil: none
	again   []uint16     // heads left in flight by an earlier device, to be taken first
	counter uint64       // with notes: of the last chain taken

	shown func() // for tests: runs when the driver sees a batch of which the notes say nothing yet
}

const unknown = 1<<32 - 1

// putBack is a chain that was put back but not published.
type putBack struct {
	head, links uint16
	written     uint32
}

func newPacked(c Config) (*packed, error) {
	rings, err := c.Rings.checked(c.Size, true)
	if err != nil {
		return nil, err
	}
	q := &packed{core: newCore(c, rings), links: make([]uint16, c.Size), descs: make([]descriptor, 0, c.Size), asked: unknown}
	q.next, q.used = position(c.Next), position(c.Next>>16)
	if c.Next == 0 && q.untouched() {
		q.next, q.used = start, start // front ends that know split rings only begin with 0
	}
	if c.Inflight != nil {
		if err := q.resume(c.Inflight); err != nil {
			return nil, err
		}
	}
	if q.next.index() >= c.Size || q.used.index() >= c.Size {
		return nil, q.fail("it continues at %d and %d of %d entries", q.next.index(), q.used.index(), c.Size)
	}
	return q, nil
}

// untouched reports whether the ring looks as if no device had used it: each entry is zero,
// or a driver has made it available in an odd round.
func (q *packed) untouched() bool {
	for i := range q.size {
		d := packedAt(q.rings.Desc, i)
		if d != (descriptor{}) && d.flags&(flagAvail|flagUsed) != start.available() {
			return false
		}
	}
	return true
}

// resume takes over from an earlier device.
func (q *packed) resume(mem []byte) (err error) {
	if q.notes, err = newPackedNotes(mem, q.size); err != nil {
		return err
	}
	published := func(at position) bool { return q.load(at.index())>>16&flagUsed == uint32(at.used()&flagUsed) }
	// After the first round no entry is zero.
	untouched := q.untouched() && packedAt(q.rings.Desc, q.size-1) == (descriptor{})
	used, again, fresh, err := q.notes.resume(q.used, untouched, published)
	if err != nil || fresh {
		return err
	}
	q.used, q.again, q.counter = used, again, lastCounter(q.notes.entries, again)
	links := 0
	for _, head := range again {
		links += len(q.notes.saved[head])
	}
	q.next = used.plus(links, q.size)
	return nil
}

func (q *packed) Move(mem *Table, r Rings) error {
	r, err := r.checked(q.size, true)
	if err != nil {
		return q.fail("%w", err)
	}
	q.mem, q.rings = mem, r
	return nil
}

// Position is next, and above it used.
func (q *packed) Position() uint32 { return uint32(q.next) | uint32(q.used)<<16 }

func (q *packed) Fresh() bool { return q.used == start && q.next == start }

func (q *packed) load(i int) uint32 { return atomic.LoadUint32(word(q.rings.Desc, i)) }

// Next takes the next available chain into c; false if there is none.
func (q *packed) Next(c *Chain) (bool, error) {
	if q.broken != nil {
		return false, q.broken
	}
	if len(q.again) > 0 {
		head := q.again[0]
		q.again = q.again[1:]
		q.descs = q.notes.load(head, q.descs[:0])
		err := q.take(c, head)
		return err == nil, err
	}
	first := q.load(q.next.index())
	if uint16(first>>16)&(flagAvail|flagUsed) != q.next.available() {
		return false, nil
	}
	head, err := q.collect(first)
	if err == nil {
		err = q.take(c, head)
	}
	if err != nil {
		return false, err
	}
	q.next = q.next.plus(len(q.descs), q.size)
	if q.notes != nil {
		q.counter++
		q.notes.mark(head, q.descs, q.counter)
	}
	return true, nil
}

// collect copies the descriptors of the chain at next, whose first word is given. Its ID is
// in the last one.
func (q *packed) collect(first uint32) (head uint16, err error) {
	q.descs = q.descs[:0]
	for at := q.next; ; at = at.plus(1, q.size) {
		d := packedAt(q.rings.Desc, at.index())
		if len(q.descs) == 0 {
			d.next, d.flags = uint16(first), uint16(first>>16)
		}
		q.descs = append(q.descs, d)
		switch n := len(q.descs); {
		case d.flags&flagNext == 0:
			return d.next, nil
		case d.flags&flagIndirect != 0:
			return 0, q.fail("a link behind an indirect table")
		case n == min(q.size, MaxChain):
			return 0, q.fail("a chain is longer than %d", n)
		}
	}
}

// packedAt copies a descriptor of a packed ring or table; its next is the ID.
func packedAt(table []byte, i int) descriptor {
	d := descriptorAt(table, i)
	d.flags, d.next = d.next, d.flags
	return d
}

// take takes the chain in descs.
func (q *packed) take(c *Chain, head uint16) error {
	switch {
	case int(head) >= q.size:
		return q.fail("a chain has the ID %d in a ring of %d", head, q.size)
	case q.busy[head]:
		return q.fail("a chain with the ID %d is available while one is in flight", head)
	case q.held+len(q.descs) > q.size:
		return q.fail("more than %d descriptors are in flight", q.size)
	}
	c.reset(head)
	for _, d := range q.descs {
		if err := q.add(c, d); err != nil {
			return err
		}
	}
	q.busy[head], q.links[head] = true, uint16(len(q.descs))
	q.inFlight++
	q.held += len(q.descs)
	return nil
}

// add adds the buffers of a descriptor, or of the indirect table that it describes. All
// entries of such a table are one chain, whatever their flags say of links.
func (q *packed) add(c *Chain, d descriptor) error {
	if d.flags&flagIndirect == 0 {
		c.add(q.mem, d)
		return nil
	}
	t, err := q.indirect(d, false)
	if err != nil {
		return err
	}
	if len(t)/16 > MaxChain {
		return q.fail("a chain is longer than %d", MaxChain)
	}
	for i := range len(t) / 16 {
		d := packedAt(t, i)
		if d.flags&flagIndirect != 0 {
			return q.fail("an indirect table holds another one")
		}
		c.add(q.mem, d)
	}
	return nil
}

// Put puts a chain back; written is the number of bytes written to it.
func (q *packed) Put(head uint16, written uint32) {
	if q.links[head] == 0 {
		panic("virtq: a chain is put back that was not taken")
	}
	q.inFlight--
	q.batch = append(q.batch, putBack{head, q.links[head], written})
	q.links[head] = 0 // it stays busy until it is published
	if q.notes != nil {
		q.notes.put(head)
	}
}

// Publish writes the used elements of a batch. The flags of the first come last, so that the
// driver sees all or none.
func (q *packed) Publish() (tell bool) {
	if len(q.batch) == 0 {
		return false
	}
	n := 0
	for _, b := range q.batch {
		n += int(b.links)
	}
	first, end := q.used, q.used.plus(n, q.size)
	if q.notes != nil {
		q.notes.publishing(first, end)
	}
	at := first
	for i, b := range q.batch {
		binary.LittleEndian.PutUint32(q.rings.Desc[16*at.index()+8:], b.written)
		if i > 0 {
			atomic.StoreUint32(word(q.rings.Desc, at.index()), b.word(at))
		}
		at = at.plus(int(b.links), q.size)
	}
	atomic.SwapUint32(word(q.rings.Desc, first.index()), q.batch[0].word(first)) // as in storeWord
	if q.shown != nil {
		q.shown()
	}
	for _, b := range q.batch {
		q.busy[b.head] = false
	}
	q.used = end
	q.held -= n
	if q.notes != nil {
		q.notes.published(q.batch, end)
	}
	q.batch = q.batch[:0]
	return end.wanted(atomic.LoadUint32(event(q.rings.Avail)), n, q.size)
}

// word is the ID and the flags of the used element at p.
func (b putBack) word(p position) uint32 {
	flags := p.used()
	if b.written > 0 {
		flags |= flagWrite
	}
	return uint32(flags)<<16 | uint32(b.head)
}

// Park requests a kick for the next available chain, and reports whether there is none now.
func (q *packed) Park() bool {
	if q.features.EventIdx {
		q.ask(eventAt<<16 | uint32(q.next))
	} else {
		q.ask(eventEnable << 16)
	}
	return q.broken == nil && !q.Available()
}

func (q *packed) Available() bool {
	return len(q.again) > 0 || uint16(q.load(q.next.index())>>16)&(flagAvail|flagUsed) == q.next.available()
}

// Unpark asks the driver not to kick.
func (q *packed) Unpark() { q.ask(eventDisable << 16) }

// ask sets the device's event area, before any later load.
func (q *packed) ask(v uint32) {
	if q.asked != v {
		q.asked = v
		atomic.SwapUint32(event(q.rings.Used), v)
	}
}
