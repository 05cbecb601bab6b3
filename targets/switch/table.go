package switchtarget

import (
	"math/bits"
	"sync/atomic"
)

// table holds the path of each region. Entries of equal width are packed into words, as
// many as fit. Any number of readers and one writer may use it at the same time.
type table struct {
	regions uint64
	width   uint64 // bits in an entry
	perWord uint64
	words   []atomic.Uint64
}

// newTable assigns the paths to the regions in turn. It returns nil if the table would
// take more than maxTable.
func newTable(regions, paths uint64) *table {
	t := &table{regions: regions, width: uint64(max(1, bits.Len64(paths-1)))}
	t.perWord = 64 / t.width
	words := (regions-1)/t.perWord + 1
	if words > maxTable/8 {
		return nil
	}
	t.words = make([]atomic.Uint64, words)
	for i := range regions {
		t.set(i, i%paths)
	}
	return t
}

func (t *table) place(region uint64) (word *atomic.Uint64, shift, mask uint64) {
	return &t.words[region/t.perWord], region % t.perWord * t.width, 1<<t.width - 1
}

func (t *table) get(region uint64) uint64 {
	word, shift, mask := t.place(region)
	return word.Load() >> shift & mask
}

func (t *table) set(region, path uint64) {
	word, shift, mask := t.place(region)
	word.Store(word.Load()&^(mask<<shift) | path<<shift)
}
