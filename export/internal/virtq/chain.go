package virtq

import "errors"

// Chain is one request of the driver: the buffers of a chain of descriptors. Chains
// are reused, so that their slices are allocated once.
type Chain struct {
	Head uint16
	// Out is what the device reads, In what it writes: slices of guest memory, none
	// of them empty. If Err is set, In holds only the buffers after the faulty
	// descriptor (so that its last byte is still that of the chain), or nothing.
	Out, In [][]byte
	// Bytes is the total length of all descriptors.
	Bytes uint64
	// Fixed means that all buffers are in fixed regions.
	Fixed bool
	// Err says what is wrong with the buffers; nil: nothing.
	Err error
}

var (
	errEmpty   = errors.New("a buffer is empty")
	errHole    = errors.New("a buffer lies outside guest memory")
	errOrder   = errors.New("a buffer for the device to read follows one for it to write")
	errScatter = errors.New("the buffers lie in too many regions of guest memory")
)

func (c *Chain) reset(head uint16) {
	*c = Chain{Head: head, Out: c.Out[:0], In: c.In[:0], Fixed: true}
}

// add appends the buffer of d.
func (c *Chain) add(t *Table, d descriptor) {
	c.Bytes += uint64(d.len)
	list := &c.Out
	switch {
	case d.flags&flagWrite != 0:
		list = &c.In
	case len(c.In) > 0:
		c.fail(errOrder)
		return
	}
	if d.len == 0 {
		c.fail(errEmpty)
		return
	}
	for addr, left := d.addr, uint64(d.len); left > 0; {
		p, fixed := t.piece(addr, left)
		switch {
		case len(p) == 0:
			c.fail(errHole)
			return
		case len(c.Out)+len(c.In) == MaxChain:
			c.fail(errScatter)
			return
		}
		*list = append(*list, p)
		c.Fixed = c.Fixed && fixed
		addr, left = addr+uint64(len(p)), left-uint64(len(p))
	}
}

// fail records the first error.
func (c *Chain) fail(err error) {
	if c.Err == nil {
		c.Err = err
	}
	c.In = c.In[:0]
}
