package virtq

import (
	"encoding/binary"
	"fmt"
)

// Queue is the device's side of a ring. It is used by one goroutine at a time.
//
//	for {
//		for each chain of Next: work on it
//		for each that is complete: Put
//		if Publish: tell the driver
//		nothing to do: if Park, wait for a kick; Unpark
//	}
type Queue struct {
	features Features
	size     int
	mem      *Table
	rings    Rings
	fence    fence

	next      uint16 // in avail: the first entry not taken
	avail     uint16 // last loaded value
	used      uint16 // in used: the first free entry
	published uint16 // value of used that the driver sees
	quiet     uint16 // the flags of used
	inFlight  int
	busy      []bool // by head: it is in flight
	broken    error

	notes   *Inflight // nil: none
	again   []uint16  // heads left in flight by an earlier device, to be taken first
	batch   []uint16  // with notes: heads put back but not published
	counter uint64    // with notes: of the last chain taken
}

// Config describes a ring and the position to continue from.
type Config struct {
	Size     int
	Features Features
	Mem      *Table
	Rings    Rings
	Next     uint16 // index in avail to continue from
	// Inflight, if not nil, is where the queue records what is in flight. If an
	// earlier device used it, it also determines the position.
	Inflight *Inflight
}

// NewQueue creates a queue that continues at the ring's position.
func NewQueue(c Config) (*Queue, error) {
	rings, err := c.Rings.checked(c.Size)
	if err != nil {
		return nil, err
	}
	used := load16(rings.Used, 2)
	q := &Queue{
		features: c.Features, size: c.Size, mem: c.Mem, rings: rings,
		next: c.Next, avail: c.Next, used: used, published: used,
		busy: make([]bool, c.Size), notes: c.Inflight,
	}
	return q, q.resume()
}

// resume takes over from an earlier device.
func (q *Queue) resume() error {
	if q.notes == nil {
		return nil
	}
	if len(q.notes.entries) < q.size {
		return fmt.Errorf("notes of %d requests for a ring of %d", len(q.notes.entries), q.size)
	}
	again, fresh, err := q.notes.resume(q.used, q.size)
	if err != nil || fresh {
		return err
	}
	q.again, q.counter = again, q.notes.lastCounter(again)
	q.next = q.used + uint16(len(again))
	q.avail = q.next
	return nil
}

// Move gives the queue another view of guest memory. Chains in flight keep their
// buffers.
func (q *Queue) Move(mem *Table, r Rings) error {
	r, err := r.checked(q.size)
	if err != nil {
		return q.fail("%w", err)
	}
	q.mem, q.rings = mem, r
	return nil
}

// Position is the index in avail of the first entry not taken.
func (q *Queue) Position() uint16 { return q.next }

// Used is the index in used that the driver sees.
func (q *Queue) Used() uint16 { return q.published }

// InFlight is the number of chains taken and not put back.
func (q *Queue) InFlight() int { return q.inFlight }

func (q *Queue) fail(format string, args ...any) error {
	if q.broken == nil {
		q.broken = fmt.Errorf("the ring is broken: "+format, args...)
	}
	return q.broken
}

// Next takes the next available chain into c; false if there is none.
func (q *Queue) Next(c *Chain) (bool, error) {
	if q.broken != nil {
		return false, q.broken
	}
	if len(q.again) > 0 {
		head := q.again[0]
		q.again = q.again[1:]
		err := q.Take(c, head)
		return err == nil, err
	}
	if q.next == q.avail && !q.look() {
		return false, q.broken
	}
	head := binary.LittleEndian.Uint16(q.rings.Avail[4+2*q.slot(q.next):])
	q.next++
	if err := q.Take(c, head); err != nil {
		return false, err
	}
	if q.notes != nil {
		q.counter++
		q.notes.mark(head, q.counter)
	}
	return true, nil
}

// slot is the ring entry of an index.
func (q *Queue) slot(index uint16) int { return int(index) & (q.size - 1) }

// look loads the index of avail and reports whether there are new entries.
func (q *Queue) look() bool {
	q.avail = load16(q.rings.Avail, 2)
	if n := q.avail - q.next; int(n) > q.size {
		q.fail("%d entries are available in one of %d", n, q.size)
		return false
	}
	return q.avail != q.next
}

// Take takes the chain of a head without avail: one that was in flight when an
// earlier device left the ring.
func (q *Queue) Take(c *Chain, head uint16) error {
	if q.broken != nil {
		return q.broken
	}
	if int(head) >= q.size {
		return q.fail("a chain begins at descriptor %d of %d", head, q.size)
	}
	if q.busy[head] {
		return q.fail("the chain at descriptor %d is available while it is in flight", head)
	}
	c.reset(head)
	if err := q.walk(c, int(head)); err != nil {
		return err
	}
	q.busy[head] = true
	q.inFlight++
	return nil
}

// walk collects the buffers of the chain that starts at descriptor i. A chain has at
// most as many descriptors as the tables that it runs through.
func (q *Queue) walk(c *Chain, i int) error {
	table, limit, indirect := q.rings.Desc, q.size, false
	for n := 1; ; n++ {
		d := descriptorAt(table, i)
		if d.flags&flagIndirect != 0 {
			t, err := q.indirect(d, indirect)
			if err != nil {
				return err
			}
			table, limit, indirect = t, n-1+len(t)/16, true
			d = descriptorAt(table, 0)
			if d.flags&flagIndirect != 0 {
				return q.fail("an indirect table holds another one")
			}
		}
		c.add(q.mem, d)
		if d.flags&flagNext == 0 {
			return nil
		}
		if n >= min(limit, MaxChain) {
			return q.fail("the chain at descriptor %d is a loop, or longer than %d", c.Head, min(limit, MaxChain))
		}
		if i = int(d.next); 16*i >= len(table) {
			return q.fail("a link to descriptor %d of %d", i, len(table)/16)
		}
	}
}

// indirect returns the table that d describes.
func (q *Queue) indirect(d descriptor, nested bool) ([]byte, error) {
	switch {
	case nested:
		return nil, q.fail("an indirect table holds another one")
	case !q.features.Indirect:
		return nil, q.fail("an indirect table, which was not agreed on")
	case d.flags&flagNext != 0:
		return nil, q.fail("a link behind an indirect table")
	case d.len == 0 || d.len%16 != 0 || d.len/16 > MaxSize:
		return nil, q.fail("an indirect table of %d bytes", d.len)
	}
	t := q.mem.Guest(d.addr, uint64(d.len))
	if t == nil {
		return nil, q.fail("an indirect table that is not in one region of guest memory")
	}
	return t, nil
}

// Put puts a chain back; written is the number of bytes written to it. The driver
// sees it after Publish. Putting back a head that was not taken is a bug of the
// caller, which no driver can cause; the panic keeps the ring from being corrupted.
func (q *Queue) Put(head uint16, written uint32) {
	if !q.busy[head] {
		panic("virtq: a chain is put back that was not taken")
	}
	q.busy[head] = false
	q.inFlight--
	e := q.rings.Used[4+8*q.slot(q.used):]
	binary.LittleEndian.PutUint32(e, uint32(head))
	binary.LittleEndian.PutUint32(e[4:], written)
	q.used++
	if q.notes != nil {
		q.notes.link(head)
		q.batch = append(q.batch, head)
	}
}

// Publish makes the chains put back visible to the driver, and reports whether it
// wants a notification.
func (q *Queue) Publish() (tell bool) {
	if q.used == q.published {
		return false
	}
	old := q.published
	q.published = q.used
	storeWord(q.rings.Used, q.quiet, q.used)
	if q.notes != nil {
		q.notes.published(q.batch, q.used)
		q.batch = q.batch[:0]
	}
	if q.features.EventIdx {
		return passed(load16(q.rings.Avail, len(q.rings.Avail)-2), old, q.used)
	}
	return load16(q.rings.Avail, 0)&quiet == 0
}

// Park requests a kick for the next available chain, and reports whether there is
// none now. If so the caller may sleep until a kick.
func (q *Queue) Park() bool {
	if q.features.EventIdx {
		q.fence.store16(q.rings.Used, q.next)
	} else {
		q.setQuiet(0)
	}
	return q.broken == nil && len(q.again) == 0 && q.next == q.avail && load16(q.rings.Avail, 2) == q.next
}

// Unpark asks the driver not to kick; the driver may ignore that.
func (q *Queue) Unpark() {
	if !q.features.EventIdx {
		q.setQuiet(quiet)
	}
}

func (q *Queue) setQuiet(flag uint16) {
	if q.quiet != flag {
		q.quiet = flag
		storeWord(q.rings.Used, flag, q.published)
	}
}
