package nbddev

import "udm/blk"

// kept is the acknowledged writes that may not be durable, in order of
// acknowledgement. The owner locks.
type kept struct {
	limit    int // for used plus reserved
	used     int
	reserved int // by writes in flight
	entries  []entry
	head     int    // entries[head:] count
	last     uint64 // number of the newest entry so far, from 1
	tail     *slab  // where the next data goes
	free     []*slab
}

// slab is memory for the data of consecutive entries.
type slab struct {
	data []byte
	used int
	refs int // entries
}

// entry is a write to replay, or the rest of one.
type entry struct {
	number          uint64 // in order of acknowledgement, from 1
	op              blk.Op
	flags           blk.Flags
	sector, sectors uint64
	data            []byte // in slab
	slab            *slab  // nil for what has no data
}

const (
	slabSize  = 4 << 20
	maxWrite  = 1 << 20 // bytes in one write, so that slabs are at least three quarters full
	entryCost = 128     // of an entry without its data, in bytes
	keptFlags = blk.NoUnmap
)

// cost is the part of the limit that keeping a bio takes; 0 with FUA, which is not
// kept.
func cost(b *blk.Bio) int {
	switch {
	case b.Flags&blk.FUA != 0:
		return 0
	case b.Op == blk.Write:
		return entryCost + int(b.Bytes())
	case b.Op == blk.WriteZeroes || b.Op == blk.Discard:
		return entryCost
	}
	return 0
}

// reserve reserves room for a bio; false if there is none.
func (k *kept) reserve(n int) bool {
	if n == 0 {
		return true
	}
	if k.used+k.reserved+n > k.limit {
		return false
	}
	k.reserved += n
	return true
}

// release returns the reserved room of a bio that has ended.
func (k *kept) release(n int) { k.reserved -= n }

// add keeps a copy of a write.
func (k *kept) add(b *blk.Bio) {
	e := entry{op: b.Op, flags: b.Flags & keptFlags, sector: b.Sector, sectors: b.Sectors}
	if b.Op == blk.Write {
		e.data, e.slab = k.room(int(b.Bytes()))
		b.CopyOut(e.data)
	}
	k.last++
	e.number = k.last
	k.entries = append(k.entries, e)
	k.used += e.cost()
}

func (e *entry) cost() int { return entryCost + len(e.data) }

func (e *entry) end() uint64 { return e.sector + e.sectors }

func (e *entry) overlaps(o *entry) bool { return e.sector < o.end() && o.sector < e.end() }

// part is the part of an entry between two sectors.
func (e entry) part(from, to uint64) entry {
	if e.data != nil {
		e.data = e.data[(from-e.sector)*blk.SectorSize : (to-e.sector)*blk.SectorSize]
	}
	e.sector, e.sectors = from, to-from
	return e
}

// supersede drops what a durable write overwrites: replaying that would put the
// durable write at risk.
func (k *kept) supersede(b *blk.Bio) {
	by := entry{sector: b.Sector, sectors: b.Sectors}
	var left []entry
	for _, e := range k.live() {
		if !e.overlaps(&by) {
			left = append(left, e)
			continue
		}
		k.used -= e.cost()
		if e.sector < by.sector {
			left = k.keepPart(left, e.part(e.sector, by.sector))
		}
		if by.end() < e.end() {
			left = k.keepPart(left, e.part(by.end(), e.end()))
		}
		k.drop(e.slab)
	}
	k.entries, k.head = left, 0
}

func (k *kept) keepPart(list []entry, e entry) []entry {
	if e.slab != nil {
		e.slab.refs++
	}
	k.used += e.cost()
	return append(list, e)
}

// room returns n bytes in the tail slab, or in a new one.
func (k *kept) room(n int) ([]byte, *slab) {
	if k.tail == nil || len(k.tail.data)-k.tail.used < n {
		if i := len(k.free); i > 0 {
			k.tail, k.free = k.free[i-1], k.free[:i-1]
		} else {
			k.tail = &slab{data: make([]byte, slabSize)}
		}
	}
	t := k.tail
	p := t.data[t.used:][:n]
	t.used += n
	t.refs++
	return p, t
}

// drop frees the memory of an entry.
func (k *kept) drop(s *slab) {
	if s == nil {
		return
	}
	if s.refs--; s.refs > 0 {
		return
	}
	if s.used = 0; s != k.tail {
		k.free = append(k.free, s)
	}
}

// live returns the entries, oldest first.
func (k *kept) live() []entry { return k.entries[k.head:] }

// trim drops the entries up to number last, which are durable.
func (k *kept) trim(last uint64) {
	for k.head < len(k.entries) && k.entries[k.head].number <= last {
		e := k.entries[k.head]
		k.entries[k.head] = entry{}
		k.head++
		k.used -= e.cost()
		k.drop(e.slab)
	}
	if k.head*2 >= len(k.entries) {
		n := copy(k.entries, k.entries[k.head:])
		clear(k.entries[n:])
		k.entries, k.head = k.entries[:n], 0
	}
}
