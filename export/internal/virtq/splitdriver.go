package virtq

import "encoding/binary"

// splitDriver is the driver's side of a split ring.
type splitDriver struct {
	driverCore
	fence     fence
	free      []uint16 // descriptors
	links     []uint16 // by head: number of ring descriptors of its chain
	next      []uint16 // by descriptor: the next one of its chain
	avail     uint16
	published uint16
	used      uint16
}

func newSplitDriver(c driverCore) *splitDriver {
	d := &splitDriver{driverCore: c, links: make([]uint16, c.size), next: make([]uint16, c.size)}
	for i := range c.size {
		d.free = append(d.free, uint16(c.size-1-i))
	}
	return d
}

// Free is the number of free descriptors.
func (d *splitDriver) Free() int { return len(d.free) }

func (d *splitDriver) Add(out, in []Buf) (head uint16, ok bool) {
	n := len(out) + len(in)
	table := d.features.Indirect && n > 1 && n <= d.perTable
	links := n
	if table {
		links = 1
	}
	if n == 0 || links > len(d.free) {
		return 0, false
	}
	chain := d.free[len(d.free)-links:]
	d.free = d.free[:len(d.free)-links]
	head = chain[0]
	d.links[head] = uint16(links)
	if table {
		d.indirect(head, out, in)
	} else {
		d.direct(chain, out, in)
	}
	binary.LittleEndian.PutUint16(d.rings.Avail[4+2*(int(d.avail)&(d.size-1)):], head)
	d.avail++
	return head, true
}

func (d *splitDriver) direct(chain []uint16, out, in []Buf) {
	for i, at := range chain {
		next := chain[min(i+1, len(chain)-1)]
		d.next[at] = next
		link(i, next, out, in).put(d.rings.Desc, int(at))
	}
}

func (d *splitDriver) indirect(head uint16, out, in []Buf) {
	off := int(head) * d.perTable * 16
	n := len(out) + len(in)
	for i := range n {
		link(i, uint16(i+1), out, in).put(d.tables[off:], i)
	}
	descriptor{d.at + uint64(off), uint32(16 * n), flagIndirect, 0}.put(d.rings.Desc, int(head))
}

// link returns descriptor i of a chain.
func link(i int, next uint16, out, in []Buf) descriptor {
	var d descriptor
	if i < len(out) {
		d.addr, d.len = out[i].Addr, out[i].Len
	} else {
		b := in[i-len(out)]
		d.addr, d.len, d.flags = b.Addr, b.Len, flagWrite
	}
	if i+1 < len(out)+len(in) {
		d.flags, d.next = d.flags|flagNext, next
	}
	return d
}

// Publish makes added requests visible to the device, and reports whether it wants a
// kick.
func (d *splitDriver) Publish() (kick bool) {
	if d.avail == d.published {
		return false
	}
	old := d.published
	d.published = d.avail
	storeWord(d.rings.Avail, 0, d.avail)
	if d.features.EventIdx {
		return passed(load16(d.rings.Used, len(d.rings.Used)-2), old, d.avail)
	}
	return load16(d.rings.Used, 0)&quiet == 0
}

// Reap returns a request that the device has completed, or false if there is none.
func (d *splitDriver) Reap() (head uint16, written uint32, ok bool) {
	if load16(d.rings.Used, 2) == d.used {
		return 0, 0, false
	}
	e := d.rings.Used[4+8*(int(d.used)&(d.size-1)):]
	head, written = uint16(binary.LittleEndian.Uint32(e)), binary.LittleEndian.Uint32(e[4:])
	d.used++
	for at, n := head, d.links[head]; n > 0; n-- {
		d.free = append(d.free, at)
		at = d.next[at]
	}
	d.links[head] = 0
	return head, written, true
}

// Park requests a notification of the next completion, and reports whether nothing is
// complete. If so the caller may sleep until it is notified.
func (d *splitDriver) Park() bool {
	if d.features.EventIdx {
		d.fence.store16(d.rings.Avail, d.used)
	}
	return load16(d.rings.Used, 2) == d.used
}
