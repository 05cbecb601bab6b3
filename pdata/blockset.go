package pdata

import "math/bits"

// BlockSet is a sparse set of blocks. It keeps bits only for the parts of the
// device that contain members. The zero value is empty.
type BlockSet struct {
	parts map[uint64]*setPart
	n     uint64
}

const setWords = 64

type setPart struct {
	n    int
	bits [setWords]uint64
}

// Len is the number of blocks.
func (s *BlockSet) Len() uint64 { return s.n }

// Has reports whether a block is in the set.
func (s *BlockSet) Has(nr uint64) bool {
	p := s.parts[nr/(64*setWords)]
	return p != nil && p.bits[nr/64%setWords]>>(nr%64)&1 != 0
}

// Add puts blocks [begin, end) into the set.
func (s *BlockSet) Add(begin, end uint64) {
	s.words(begin, end, func(p *setPart, i, mask uint64) {
		p.count(s, bits.OnesCount64(mask&^p.bits[i]))
		p.bits[i] |= mask
	})
}

// Remove takes blocks [begin, end) out of the set.
func (s *BlockSet) Remove(begin, end uint64) {
	s.words(begin, end, func(p *setPart, i, mask uint64) {
		p.count(s, -bits.OnesCount64(mask&p.bits[i]))
		p.bits[i] &^= mask
	})
}

func (p *setPart) count(s *BlockSet, n int) {
	p.n += n
	s.n += uint64(n)
}

// words calls fn for each word that has bits of [begin, end).
func (s *BlockSet) words(begin, end uint64, fn func(p *setPart, i, mask uint64)) {
	for begin < end {
		at := begin / (64 * setWords)
		p := s.parts[at]
		if p == nil {
			if s.parts == nil {
				s.parts = map[uint64]*setPart{}
			}
			p = &setPart{}
			s.parts[at] = p
		}
		n := min(64-begin%64, end-begin)
		fn(p, begin/64%setWords, ^uint64(0)>>(64-n)<<(begin%64))
		if p.n == 0 {
			delete(s.parts, at)
		}
		begin += n
	}
}
