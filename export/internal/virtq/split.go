package virtq

import "encoding/binary"

// split is the device's side of a split ring.
type split struct {
	core
	fence     fence
	next      uint16 // in avail: the first entry not taken
	avail     uint16 // last loaded value
	used      uint16 // in used: the first free entry
	published uint16 // value of used that the driver sees
	quiet     uint16 // the flags of used

	notes   *splitNotes // nil: none
	again   []uint16    // heads left in flight by an earlier device, to be taken first
	batch   []uint16    // with notes: heads put back but not published
	counter uint64      // with notes: of the last chain taken
}

func newSplit(c Config) (*split, error) {
	rings, err := c.Rings.checked(c.Size, false)
	if err != nil {
		return nil, err
	}
	used, next := load16(rings.Used, 2), uint16(c.Next)
	q := &split{core: newCore(c, rings), next: next, avail: next, used: used, published: used, quiet: load16(rings.Used, 0)}
	if c.Inflight != nil {
		if q.notes, err = newSplitNotes(c.Inflight, c.Size); err != nil {
			return nil, err
		}
	}
	return q, q.resume()
}

// resume takes over from an earlier device.
func (q *split) resume() error {
	if q.notes == nil {
		return nil
	}
	again, fresh, err := q.notes.resume(q.used, q.size)
	if err != nil || fresh {
		return err
	}
	q.again, q.counter = again, lastCounter(q.notes.entries, again)
	q.next = q.used + uint16(len(again))
	q.avail = q.next
	return nil
}

// Move gives the queue another view of guest memory. Chains in flight keep their
// buffers.
func (q *split) Move(mem *Table, r Rings) error {
	r, err := r.checked(q.size, false)
	if err != nil {
		return q.fail("%w", err)
	}
	q.mem, q.rings = mem, r
	return nil
}

// Position is the index in avail of the first entry not taken.
func (q *split) Position() uint32 { return uint32(q.next) }

func (q *split) Fresh() bool { return q.used == 0 && q.next == 0 }

// Next takes the next available chain into c; false if there is none.
func (q *split) Next(c *Chain) (bool, error) {
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
func (q *split) slot(index uint16) int { return int(index) & (q.size - 1) }

// look loads the index of avail and reports whether there are new entries.
func (q *split) look() bool {
	q.avail = load16(q.rings.Avail, 2)
	if n := q.avail - q.next; int(n) > q.size {
		q.fail("%d entries are available in one of %d", n, q.size)
		return false
	}
	return q.avail != q.next
}

// Take takes the chain of a head without avail: one that was in flight when an
// earlier device left the ring.
func (q *split) Take(c *Chain, head uint16) error {
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
func (q *split) walk(c *Chain, i int) error {
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

// Put puts a chain back; written is the number of bytes written to it. The driver
// sees it after Publish. Putting back a head that was not taken is a bug of the
// caller, which no driver can cause; the panic keeps the ring from being corrupted.
func (q *split) Put(head uint16, written uint32) {
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
func (q *split) Publish() (tell bool) {
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
func (q *split) Park() bool {
	if q.features.EventIdx {
		q.fence.store16(q.rings.Used, q.next)
	} else {
		q.setQuiet(0)
	}
	return q.broken == nil && !q.Available()
}

func (q *split) Available() bool {
	return len(q.again) > 0 || q.next != q.avail || load16(q.rings.Avail, 2) != q.next
}

// Unpark asks the driver not to kick; the driver may ignore that.
func (q *split) Unpark() {
	if !q.features.EventIdx {
		q.setQuiet(quiet)
	}
}

func (q *split) setQuiet(flag uint16) {
	if q.quiet != flag {
		q.quiet = flag
		storeWord(q.rings.Used, flag, q.published)
	}
}
