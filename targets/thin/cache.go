package thin

import (
	"sync/atomic"

	"udm/targets/thin/thinmeta"
)

// Each cache entry is one 64-bit word, so that it is loaded and stored atomically:
//
//	bits 0–39   data block
//	bit  40     shared: reads only
//	bit  41     valid
//	bits 42–63  block >> bits of the table
//
// Blocks whose tag does not fit are not cached.
const (
	dataBits  = 40
	sharedBit = 1 << 40
	validBit  = 1 << 41
	tagShift  = 42

	smallest = 10 // log2 of the words of the smallest table that is not empty
)

// budget bounds the memory of the mapping caches of a pool.
type budget struct {
	words   atomic.Int64 // in use by all tables
	most    int64        // limit for all tables
	largest uint8        // log2 of the words of the largest table
}

// setDefaults allows 48 MiB in all tables and 32 MiB in one.
func (b *budget) setDefaults() { b.most, b.largest = 6<<20, 22 }

// table is a direct-mapped table of entries: block b is at word b mod 2^bits.
type table struct {
	mask      uint64
	bits      uint8
	want      uint8 // log2 of the table to grow to with the first entry
	conflicts atomic.Int32
	words     []atomic.Uint64
}

// cache is a volume's mapping cache. Any goroutine may read and fill it; see
// the package comment for who may do so when.
type cache struct {
	table  atomic.Pointer[table]
	budget *budget
}

func newTable(bits, want uint8) *table {
	return &table{mask: 1<<bits - 1, bits: bits, want: want, words: make([]atomic.Uint64, 1<<bits)}
}

func (c *cache) init(b *budget) {
	c.budget = b
	b.words.Add(1)
	c.table.Store(newTable(0, smallest))
}

// at returns the word that may hold the entry of a block, and the tag that the word
// must have for it to be that entry.
func (t *table) at(block uint64) (*atomic.Uint64, uint64) {
	return &t.words[block&t.mask], block >> t.bits << tagShift
}

// match reports whether w is a valid entry with this tag.
func match(w, tag uint64) bool {
	return w>>tagShift<<tagShift == tag && w&validBit != 0
}

// fill stores an entry in t, which must have been loaded from the cache before m was
// looked up. The caller holds the cell of the block.
func (c *cache) fill(t *table, block uint64, m thinmeta.Mapping) {
	if t.bits == 0 {
		c.grow(t, t.want)
		return
	}
	word, tag := t.at(block)
	if tag>>tagShift != block>>t.bits || m.Block>>dataBits != 0 {
		return
	}
	w := tag | validBit | m.Block
	if m.Shared {
		w |= sharedBit
	}
	old := word.Load()
	word.Store(w)
	if old&validBit != 0 && old>>tagShift != w>>tagShift && int(t.conflicts.Add(1)) > len(t.words) {
		c.grow(t, t.bits+2)
	}
}

// grow replaces t by a larger empty table if the pool's budget allows it.
func (c *cache) grow(t *table, bits uint8) {
	t.conflicts.Store(0)
	b := c.budget
	if bits > b.largest || b.words.Load()-int64(len(t.words))+1<<bits > b.most {
		return
	}
	if c.table.CompareAndSwap(t, newTable(bits, bits)) {
		b.words.Add(1<<bits - int64(len(t.words)))
	}
}

// erase removes the entries of blocks [begin, end).
func (c *cache) erase(begin, end uint64) {
	t := c.table.Load()
	if end-begin > uint64(len(t.words)) {
		c.clear()
		return
	}
	for b := begin; b < end; b++ {
		if word, tag := t.at(b); match(word.Load(), tag) {
			word.Store(0)
		}
	}
	if c.table.Load() != t {
		// It grew meanwhile; the new table may have been filled already.
		c.erase(begin, end)
	}
}

// clear removes all entries.
func (c *cache) clear() {
	for {
		t := c.table.Load()
		if c.table.CompareAndSwap(t, newTable(0, max(t.want, smallest))) {
			c.budget.words.Add(1 - int64(len(t.words)))
			return
		}
	}
}

// drop returns the cache's memory to the pool's budget.
func (c *cache) drop() { c.budget.words.Add(-int64(len(c.table.Load().words))) }
