package writecache

import "math/bits"

// freeSet holds the free blocks of the cache. They are taken in the order of their
// numbers, round and round, so that blocks that are written one after the other lie next
// to each other. A second level says which words of the first are not empty.
type freeSet struct {
	words, sums []uint64
	size        int
	cursor      int32 // the next block to be taken; none: no block is free
}

const none = int32(-1)

func newFreeSet(n uint64) *freeSet {
	words := (n + 63) / 64
	return &freeSet{words: make([]uint64, words), sums: make([]uint64, (words+63)/64), cursor: none}
}

func (f *freeSet) add(i int32) {
	f.words[i/64] |= 1 << (i % 64)
	f.sums[i/4096] |= 1 << (i / 64 % 64)
	if f.size++; f.cursor == none {
		f.cursor = i
	}
}

// take takes the next block, or none if it is not the wanted one. want none: any.
func (f *freeSet) take(want int32) int32 {
	i := f.cursor
	if i == none || want != none && i != want {
		return none
	}
	if f.words[i/64] &^= 1 << (i % 64); f.words[i/64] == 0 {
		f.sums[i/4096] &^= 1 << (i / 64 % 64)
	}
	f.size--
	if f.cursor = f.next(i + 1); f.cursor == none {
		f.cursor = f.next(0)
	}
	return i
}

// next is the first free block from i on.
func (f *freeSet) next(i int32) int32 {
	w := int(i / 64)
	if w >= len(f.words) {
		return none
	}
	if x := f.words[w] >> (i % 64); x != 0 {
		return i + int32(bits.TrailingZeros64(x))
	}
	w++
	for s := w / 64; s < len(f.sums); s++ {
		x := f.sums[s]
		if s == w/64 {
			x &^= 1<<(w%64) - 1
		}
		if x != 0 {
			w = s*64 + bits.TrailingZeros64(x)
			return int32(w*64 + bits.TrailingZeros64(f.words[w]))
		}
	}
	return none
}
