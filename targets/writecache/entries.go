package writecache

import (
	"math/bits"
	"time"
)

// state says what may be done with a block of the cache.
type state uint8

const (
	free    state = iota
	filling       // its first write is under way
	live          // it holds the content of its sectors
	writing       // live, and being copied to the origin: it must not be written
	leaving       // the content of its sectors is on the origin or gone; not free yet
)

// entry is a block of the cache (struct wc_entry).
type entry struct {
	sector, seq uint64
	age         time.Duration // when it was taken; only with max_age
	next        int32         // in the chain of its hash
	older       int32         // in the order of their first writes
	newer       int32
	state       state
}

// entries finds the blocks of the cache by sector, newest first, and lists those that
// can be written back in the order in which they were taken. Nothing allocates.
type entries struct {
	all            []entry
	heads          []int32 // of the hash
	shift          int     // of the hash
	blockShift     int     // log2 of the sectors of a block
	oldest, newest int32   // filling and live ones
}

func newEntries(n uint64, blockShift int) *entries {
	size := max(1, bits.Len64(n-1))
	t := &entries{all: make([]entry, n), heads: make([]int32, 1<<size), shift: 64 - size, blockShift: blockShift, oldest: none, newest: none}
	for i := range t.heads {
		t.heads[i] = none
	}
	return t
}

// chain is the head of the chain that the block of a sector is in.
func (t *entries) chain(sector uint64) *int32 {
	return &t.heads[sector>>t.blockShift*0x9E3779B97F4A7C15>>t.shift]
}

// find is the newest entry of a sector, or none.
func (t *entries) find(sector uint64) int32 {
	return t.from(*t.chain(sector), sector)
}

// from is the first entry of a sector from i on in a chain.
func (t *entries) from(i int32, sector uint64) int32 {
	for i != none && t.all[i].sector != sector {
		i = t.all[i].next
	}
	return i
}

// readable is the newest entry of a sector whose content counts, or none.
func (t *entries) readable(sector uint64) int32 {
	i := t.find(sector)
	for i != none && t.all[i].state == leaving {
		i = t.from(t.all[i].next, sector)
	}
	return i
}

// older reports whether another entry of i's sector has been there before.
func (t *entries) hasOlder(i int32) bool {
	e := &t.all[i]
	return t.from(e.next, e.sector) != none
}

// insert makes i the newest entry of its sector.
func (t *entries) insert(i int32) {
	e := &t.all[i]
	head := t.chain(e.sector)
	e.next, *head = *head, i
	t.pushNewest(i)
}

// remove takes i, which is in no order, out of its chain.
func (t *entries) remove(i int32) {
	at := t.chain(t.all[i].sector)
	for *at != i {
		at = &t.all[*at].next
	}
	*at = t.all[i].next
	t.all[i].state = free
}

func (t *entries) pushNewest(i int32) {
	e := &t.all[i]
	e.older, e.newer = t.newest, none
	if t.newest == none {
		t.oldest = i
	} else {
		t.all[t.newest].newer = i
	}
	t.newest = i
}

func (t *entries) pushOldest(i int32) {
	e := &t.all[i]
	e.older, e.newer = none, t.oldest
	if t.oldest == none {
		t.newest = i
	} else {
		t.all[t.oldest].older = i
	}
	t.oldest = i
}

// unlink takes i out of the order.
func (t *entries) unlink(i int32) {
	e := &t.all[i]
	if e.older == none {
		t.oldest = e.newer
	} else {
		t.all[e.older].newer = e.newer
	}
	if e.newer == none {
		t.newest = e.older
	} else {
		t.all[e.newer].older = e.older
	}
}

// next is the entry of the following sectors if it is the following block of the cache
// as well, and can be written or written back together with i; else none.
func (t *entries) following(i int32) int32 {
	n := i + 1
	if int(n) < len(t.all) && t.all[n].state == live && t.all[n].sector == t.all[i].sector+1<<t.blockShift && t.find(t.all[n].sector) == n {
		return n
	}
	return none
}
