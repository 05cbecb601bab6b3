package smq

import "math/bits"

// none is the index of no entry.
const none = int32(-1)

// entry is a block of the cache, a hot spot, or a sentinel that marks a place in a
// queue.
type entry struct {
	oblock           uint64
	hash, prev, next int32 // links: of the bucket, and of the list of the level
	level            uint8
	dirty            bool
	allocated        bool
	sentinel         bool
	pending          bool // background work is queued or under way; in no queue meanwhile
}

// list is a list of entries that are linked by their indexes.
type list struct {
	n          int // without sentinels
	head, tail int32
}

func newList() list { return list{head: none, tail: none} }

// entries are all entries of a policy.
type entries []entry

func (es entries) pushFront(l *list, i int32) {
	e := &es[i]
	e.prev, e.next = none, l.head
	if l.head != none {
		es[l.head].prev = i
	} else {
		l.tail = i
	}
	l.head = i
	l.count(e, 1)
}

func (es entries) pushBack(l *list, i int32) {
	e := &es[i]
	e.prev, e.next = l.tail, none
	if l.tail != none {
		es[l.tail].next = i
	} else {
		l.head = i
	}
	l.tail = i
	l.count(e, 1)
}

// pushBefore puts i in front of old, which is in l.
func (es entries) pushBefore(l *list, old, i int32) {
	prev := es[old].prev
	if prev == none {
		es.pushFront(l, i)
		return
	}
	e := &es[i]
	e.prev, e.next = prev, old
	es[prev].next, es[old].prev = i, i
	l.count(e, 1)
}

func (es entries) remove(l *list, i int32) {
	e := &es[i]
	if e.prev != none {
		es[e.prev].next = e.next
	} else {
		l.head = e.next
	}
	if e.next != none {
		es[e.next].prev = e.prev
	} else {
		l.tail = e.prev
	}
	l.count(e, -1)
}

func (l *list) count(e *entry, n int) {
	if !e.sentinel {
		l.n += n
	}
}

// first is the first entry that is not a sentinel, and how many of those it passed.
func (es entries) first(l *list) (i int32, passed int) {
	for i = l.head; i != none && es[i].sentinel; i = es[i].next {
		passed++
	}
	return i, passed
}

// popTail removes the last entry that is not a sentinel.
func (es entries) popTail(l *list) int32 {
	i := l.tail
	for i != none && es[i].sentinel {
		i = es[i].prev
	}
	if i != none {
		es.remove(l, i)
	}
	return i
}

// pool hands out the entries [begin, end).
type pool struct {
	es    entries
	begin int32
	used  int
	free  list
}

func newPool(es entries, begin, end int32) pool {
	p := pool{es: es, begin: begin, free: newList()}
	for i := begin; i < end; i++ {
		es.pushBack(&p.free, i)
	}
	return p
}

func (p *pool) empty() bool { return p.free.head == none }

// alloc returns a free entry, or none.
func (p *pool) alloc() int32 {
	i := p.free.tail
	if i != none {
		p.take(i)
	}
	return i
}

// take allocates a certain free entry.
func (p *pool) take(i int32) {
	p.es.remove(&p.free, i)
	e := &p.es[i]
	e.level, e.dirty, e.pending, e.allocated = 0, false, false, true
	p.used++
}

func (p *pool) release(i int32) {
	p.es[i].allocated, p.es[i].pending = false, false
	p.es.pushBack(&p.free, i)
	p.used--
}

// table finds entries by their block of the origin.
type table struct {
	es      entries
	buckets []int32
	shift   uint
}

// newTable makes a table for n entries, with a bucket for each: every other entry in a
// bucket is a miss in the processor's cache.
func newTable(es entries, n int) table {
	size := max(16, 1<<bits.Len(uint(max(n, 1)-1)))
	t := table{es: es, buckets: make([]int32, size), shift: uint(64 - bits.Len(uint(size-1)))}
	for i := range t.buckets {
		t.buckets[i] = none
	}
	return t
}

func (t *table) bucket(oblock uint64) *int32 {
	return &t.buckets[oblock*0x61c8864680b583eb>>t.shift]
}

func (t *table) insert(i int32) {
	b := t.bucket(t.es[i].oblock)
	t.es[i].hash = *b
	*b = i
}

func (t *table) find(oblock uint64) int32 {
	i := *t.bucket(oblock)
	for i != none && t.es[i].oblock != oblock {
		i = t.es[i].hash
	}
	return i
}

func (t *table) remove(i int32) {
	b := t.bucket(t.es[i].oblock)
	for *b != i {
		b = &t.es[*b].hash
	}
	*b = t.es[i].hash
}

// bitset remembers which entries were hit in a period.
type bitset []uint64

func newBitset(n int) bitset { return make(bitset, (n+63)/64) }

// set sets a bit and returns what it was.
func (b bitset) set(i int32) bool {
	was := b[i/64]>>(i%64)&1 != 0
	b[i/64] |= 1 << (i % 64)
	return was
}

func (b bitset) unset(i int32) { b[i/64] &^= 1 << (i % 64) }
