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

	next      uint16 // of avail: the first entry that was not taken
	avail     uint16 // as it was loaded last
	used      uint16 // of used: the first entry that is free
	published uint16 // what the driver knows of used
	quiet     uint16 // the flags of used
	inFlight  int
	busy      []bool // by head: it is in flight
	broken    error

	notes   *Inflight // nil: none
	again   []uint16  // heads that an earlier device has left in flight, to be taken first
	batch   []uint16  // with notes: heads that were put back and not published
	counter uint64    // with notes: of what was taken last
}

// Config says where a ring is and where it goes on.
type Config struct {
	Size     int
	Features Features
	Mem      *Table
	Rings    Rings
	Next     uint16 // the index in avail to go on from
	// Inflight, if any, is where the queue notes what is in flight. When an earlier
	// device has used it, it tells where to go on, too.
	Inflight *Inflight
}

// NewQueue makes a queue that goes on where the ring is.
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

// Move gives the queue another view of guest memory: chains that are in flight
// keep the buffers that they have.
func (q *Queue) Move(mem *Table, r Rings) error {
	r, err := r.checked(q.size)
	if err != nil {
		return q.fail("%w", err)
	}
	q.mem, q.rings = mem, r
	return nil
}

// Position is the index in avail of the first entry that was not taken.
func (q *Queue) Position() uint16 { return q.next }

// Used is the index in used that the driver knows.
func (q *Queue) Used() uint16 { return q.published }

// InFlight counts the chains that were taken and not put back.
func (q *Queue) InFlight() int { return q.inFlight }

func (q *Queue) fail(format string, args ...any) error {
	if q.broken == nil {
		q.broken = fmt.Errorf("the ring is broken: "+format, args...)
	}
	return q.broken
}

// Next takes the next chain that is available into c; false: there is none.
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

// slot is the entry of a ring that an index means.
func (q *Queue) slot(index uint16) int { return int(index) & (q.size - 1) }

// look loads the index of avail and reports whether there is something new.
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

// walk collects the buffers of the chain that begins at descriptor i. A chain has
// no more descriptors than the tables that it runs through.
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

// indirect is the table that d describes.
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

// Put gives a chain back, with how many bytes of it were written. The driver sees
// it after Publish. A head that was not taken is a defect of the caller, which no
// driver can bring about: the panic keeps the ring from being corrupted.
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

// Publish shows the driver what was put back, and reports whether it wants to be
// told.
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

// Park makes the driver kick when it makes more available, and reports whether
// nothing is: then the caller may sleep until a kick.
func (q *Queue) Park() bool {
	if q.features.EventIdx {
		q.fence.store16(q.rings.Used, q.next)
	} else {
		q.setQuiet(0)
	}
	return q.broken == nil && len(q.again) == 0 && q.next == q.avail && load16(q.rings.Avail, 2) == q.next
}

// Unpark makes the driver kick no more, as far as it listens.
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
