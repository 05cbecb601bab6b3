package pdata

import "math/bits"

// bitmap is the content of a bitmap block.
type bitmap []byte

func (b bitmap) word(i uint32) uint64 { return le.Uint64(b[bitmapHead+8*(i/perWord):]) }

func (b bitmap) get(i uint32) uint32 {
	w := b.word(i) >> (2 * (i % perWord))
	return uint32(w&1<<1 | w>>1&1)
}

func (b bitmap) set(i, count uint32) {
	shift := 2 * (i % perWord)
	w := b.word(i) &^ (3 << shift)
	w |= uint64(count>>1&1|count&1<<1) << shift
	le.PutUint64(b[bitmapHead+8*(i/perWord):], w)
}

// free finds the first entry that is 0 in [begin, end).
func (b bitmap) free(begin, end uint32) (uint32, bool) {
	for begin < end {
		w := b.word(begin)
		used := (w | w>>1) & highBits >> (2 * (begin % perWord)) // bit 2i: the i-th entry from begin is in use
		if n := uint32(bits.TrailingZeros64(^(used | ^uint64(highBits))) / 2); begin%perWord+n < perWord {
			return begin + n, begin+n < end
		}
		begin += perWord - begin%perWord
	}
	return 0, false
}
