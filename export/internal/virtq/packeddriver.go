package virtq

import (
	"encoding/binary"
	"sync/atomic"
)

// packedDriver is the driver's side of a packed ring.
type packedDriver struct {
	driverCore
	ids   []uint16 // free buffer IDs
	links []uint16 // by ID: number of ring descriptors of its chain
	room  int      // free ring descriptors
	next  position // the first free one
	used  position // where the next used element comes

	first     position // the first descriptor added since Publish
	firstWord uint32   // which becomes available then
	added     int      // descriptors since Publish
}

func newPackedDriver(c driverCore) *packedDriver {
	d := &packedDriver{driverCore: c, links: make([]uint16, c.size), room: c.size, next: start, used: start}
	for i := range c.size {
		d.ids = append(d.ids, uint16(c.size-1-i))
	}
	return d
}

func (d *packedDriver) Free() int { return d.room }

func (d *packedDriver) Add(out, in []Buf) (head uint16, ok bool) {
	n := len(out) + len(in)
	table := d.features.Indirect && n > 1 && n <= d.perTable
	links := n
	if table {
		links = 1
	}
	if n == 0 || links > d.room {
		return 0, false
	}
	head = d.ids[len(d.ids)-1]
	d.ids = d.ids[:len(d.ids)-1]
	d.links[head], d.room = uint16(links), d.room-links
	if !table {
		for i := range n {
			d.append(link(i, 0, out, in), head)
		}
		return head, true
	}
	off := int(head) * d.perTable * 16
	for i := range n {
		l := link(i, 0, out, in)
		descriptor{l.addr, l.len, 0, l.flags & flagWrite}.put(d.tables[off:], i)
	}
	d.append(descriptor{d.at + uint64(off), uint32(16 * n), flagIndirect, 0}, head)
	return head, true
}

// append makes a descriptor available. Of the first one since Publish the flags follow then.
func (d *packedDriver) append(l descriptor, id uint16) {
	p := d.rings.Desc[16*d.next.index():]
	binary.LittleEndian.PutUint64(p, l.addr)
	binary.LittleEndian.PutUint32(p[8:], l.len)
	w := uint32(l.flags|d.next.available())<<16 | uint32(id)
	if d.added == 0 {
		d.first, d.firstWord = d.next, w
	} else {
		atomic.StoreUint32(word(d.rings.Desc, d.next.index()), w)
	}
	d.added++
	d.next = d.next.plus(1, d.size)
}

func (d *packedDriver) Publish() (kick bool) {
	if d.added == 0 {
		return false
	}
	n := d.added
	d.added = 0
	atomic.SwapUint32(word(d.rings.Desc, d.first.index()), d.firstWord)
	return d.next.wanted(atomic.LoadUint32(event(d.rings.Used)), n, d.size)
}

// complete is the word of the used element that comes next, if it has come.
func (d *packedDriver) complete() (w uint32, ok bool) {
	w = atomic.LoadUint32(word(d.rings.Desc, d.used.index()))
	return w, uint16(w>>16)&(flagAvail|flagUsed) == d.used.used()
}

func (d *packedDriver) Reap() (head uint16, written uint32, ok bool) {
	w, ok := d.complete()
	if !ok {
		return 0, 0, false
	}
	head = uint16(w)
	written = binary.LittleEndian.Uint32(d.rings.Desc[16*d.used.index()+8:])
	n := int(d.links[head])
	d.used, d.room = d.used.plus(n, d.size), d.room+n
	d.ids = append(d.ids, head)
	return head, written, true
}

func (d *packedDriver) Park() bool {
	v := uint32(eventEnable << 16)
	if d.features.EventIdx {
		v = eventAt<<16 | uint32(d.used)
	}
	atomic.SwapUint32(event(d.rings.Avail), v)
	_, ok := d.complete()
	return !ok
}
