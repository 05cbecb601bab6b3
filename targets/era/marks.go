package era

import "sync/atomic"

// marks is a set of blocks. It is safe for concurrent use.
type marks struct{ words []atomic.Uint64 }

func newMarks(blocks uint32) *marks { return &marks{make([]atomic.Uint64, (uint64(blocks)+63)/64)} }

// have reports whether all blocks from first to last are in the set.
func (m *marks) have(first, last uint32) bool {
	for b := uint64(first); b <= uint64(last); b++ {
		if b/64 >= uint64(len(m.words)) || m.words[b/64].Load()>>(b%64)&1 == 0 {
			return false
		}
	}
	return true
}

func (m *marks) add(b uint32) { m.words[b/64].Or(1 << (b % 64)) }
