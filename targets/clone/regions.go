package clone

import (
	"math/bits"
	"sync/atomic"
)

// regionMap is the set of regions that are hydrated. It is safe for concurrent use, and
// regions are taken out only while no I/O is mapped.
type regionMap struct {
	n     uint64
	words []atomic.Uint64
	count *atomic.Uint64
}

func newRegionMap(n uint64) regionMap {
	return regionMap{n, make([]atomic.Uint64, (n+63)/64), new(atomic.Uint64)}
}

// load replaces a word.
func (m *regionMap) load(index, word uint64) {
	if rest := m.n - index*64; rest < 64 {
		word &= 1<<rest - 1
	}
	was := m.words[index].Swap(word)
	m.count.Add(uint64(bits.OnesCount64(word) - bits.OnesCount64(was)))
}

func (m *regionMap) has(r uint64) bool { return m.words[r/64].Load()>>(r%64)&1 != 0 }

// add adds a region and reports whether it was not in the set.
func (m *regionMap) add(r uint64) bool {
	if m.words[r/64].Or(1<<(r%64))>>(r%64)&1 != 0 {
		return false
	}
	m.count.Add(1)
	return true
}

// all reports whether all regions [begin, end) are in the set.
func (m *regionMap) all(begin, end uint64) bool { return m.missing(begin) >= end }

// missing is the first region at or after r that is not in the set; at least n if there
// is none.
func (m *regionMap) missing(r uint64) uint64 {
	for r < m.n {
		if w := ^m.words[r/64].Load() >> (r % 64); w != 0 {
			return r + uint64(bits.TrailingZeros64(w))
		}
		r += 64 - r%64
	}
	return m.n
}
