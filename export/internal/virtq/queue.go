package virtq

import "fmt"

// Queue is the device's side of a ring. It is used by one goroutine at a time.
//
//	for {
//		for each chain of Next: work on it
//		for each that is complete: Put
//		if Publish: tell the driver
//		nothing to do: if Park, wait for a kick; Unpark
//	}
type Queue interface {
	// Next takes the next available chain into c; false if there is none.
	Next(c *Chain) (bool, error)
	// Available reports whether there is a chain for Next.
	Available() bool
	// Put puts the chain of a head back; written is the number of bytes written to
	// it. The driver sees it after Publish. Putting back a head that was not taken is
	// a bug of the caller, which no driver can cause; the panic keeps the ring from
	// being corrupted.
	Put(head uint16, written uint32)
	// Publish makes the chains put back visible to the driver, and reports whether it
	// wants a notification.
	Publish() (tell bool)
	// Park requests a kick for the next available chain, and reports whether there is
	// none now. If so the caller may sleep until a kick.
	Park() bool
	// Unpark asks the driver not to kick; the driver may ignore that.
	Unpark()
	// Move gives the queue another view of guest memory. Chains in flight keep their
	// buffers.
	Move(mem *Table, r Rings) error
	// Position is where another queue continues, as [Config].Next has it.
	Position() uint32
	// Fresh reports whether the queue is where a driver begins. After many requests it
	// is there again.
	Fresh() bool
	// InFlight is the number of chains taken and not put back.
	InFlight() int
}

// Config describes a ring and the position to continue from.
type Config struct {
	Size     int
	Features Features
	Mem      *Table
	Rings    Rings
	// Next is what vhost-user calls the base: of a split ring the index in avail to
	// continue from; of a packed one the positions (index 15, wrap counter 1) in
	// avail, and above them in used. 0 is where any ring begins.
	Next uint32
	// Inflight, if not nil, is memory of InflightLen bytes where the queue records
	// what is in flight. If an earlier device used it, it also determines the
	// position.
	Inflight []byte
}

// NewQueue creates a queue that continues at the ring's position.
func NewQueue(c Config) (Queue, error) {
	if c.Features.Packed {
		q, err := newPacked(c)
		if err != nil {
			return nil, err
		}
		return q, nil
	}
	q, err := newSplit(c)
	if err != nil {
		return nil, err
	}
	return q, nil
}

// core is what both kinds of queue have.
type core struct {
	features Features
	size     int
	mem      *Table
	rings    Rings
	inFlight int
	busy     []bool // by head: it is in flight
	broken   error
}

func newCore(c Config, r Rings) core {
	return core{features: c.Features, size: c.Size, mem: c.Mem, rings: r, busy: make([]bool, c.Size)}
}

func (q *core) InFlight() int { return q.inFlight }

func (q *core) fail(format string, args ...any) error {
	if q.broken == nil {
		q.broken = fmt.Errorf("the ring is broken: "+format, args...)
	}
	return q.broken
}

// indirect returns the table that d describes.
func (q *core) indirect(d descriptor, nested bool) ([]byte, error) {
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
