package pdata

// Bitset is a type of sets of small numbers, stored as an array of 64-bit words.
// It caches the word used last: call Flush to store it before a commit and before
// others use the root. (dm-bitset.c.)
type Bitset struct {
	a     *Array[uint64]
	index uint64 // of the cached word
	word  uint64
	kept  bool
	dirty bool
}

// NewBitset makes a type of bitsets; it serves one bitset at a time.
func NewBitset(tm *TM) *Bitset { return &Bitset{a: NewArray(tm, U64)} }

// Empty makes a bitset of size 0.
func (b *Bitset) Empty() (root uint64, err error) { return b.a.Empty() }

// New makes a bitset of size bits, calling bit for each in order.
func (b *Bitset) New(size uint64, bit func(i uint64) bool) (root uint64, err error) {
	return b.a.New((size+63)/64, func(i uint64) (w uint64, err error) {
		for j := i * 64; j < min(size, i*64+64); j++ {
			if bit(j) {
				w |= 1 << (j % 64)
			}
		}
		return w, nil
	})
}

// Resize changes the number of bits, in whole words. All bits of new words are
// fill.
func (b *Bitset) Resize(root, size, newSize uint64, fill bool) (newRoot uint64, err error) {
	if root, err = b.Flush(root); err != nil {
		return root, err
	}
	b.kept = false
	w := uint64(0)
	if fill {
		w = ^w
	}
	return b.a.Resize(root, (size+63)/64, (newSize+63)/64, w)
}

// Flush stores the cached word.
func (b *Bitset) Flush(root uint64) (newRoot uint64, err error) {
	if !b.kept || !b.dirty {
		return root, nil
	}
	root, err = b.a.Set(root, b.index, b.word)
	b.dirty = err != nil
	return root, err
}

// keep caches the word that contains bit i.
func (b *Bitset) keep(root, i uint64) (newRoot uint64, err error) {
	if b.kept && b.index == i/64 {
		return root, nil
	}
	if root, err = b.Flush(root); err != nil {
		return root, err
	}
	b.index = i / 64
	b.word, err = b.a.Get(root, b.index)
	b.kept = err == nil
	return root, err
}

// Set adds i.
func (b *Bitset) Set(root, i uint64) (newRoot uint64, err error) { return b.put(root, i, 1) }

// Clear removes i.
func (b *Bitset) Clear(root, i uint64) (newRoot uint64, err error) { return b.put(root, i, 0) }

func (b *Bitset) put(root, i, bit uint64) (newRoot uint64, err error) {
	if root, err = b.keep(root, i); err != nil {
		return root, err
	}
	b.word = b.word&^(1<<(i%64)) | bit<<(i%64)
	b.dirty = true
	return root, nil
}

// Test reports whether i is in the set.
func (b *Bitset) Test(root, i uint64) (newRoot uint64, set bool, err error) {
	root, err = b.keep(root, i)
	return root, err == nil && b.word>>(i%64)&1 != 0, err
}

// Del drops a reference to a bitset; the last one frees it.
func (b *Bitset) Del(root uint64) error {
	b.kept = false
	return b.a.Del(root)
}

// Walk calls fn for every word, in order. Call Flush first.
func (b *Bitset) Walk(root uint64, fn func(index, word uint64) error) error {
	return b.a.Walk(root, fn)
}
