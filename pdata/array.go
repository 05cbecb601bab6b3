package pdata

import "syscall"

// Array is a type of arrays of plain values: a tree from block index to array
// blocks, all of which are full except the last. Calls that change an array
// return its new root; the old one must not be used again in the running
// transaction. (dm-array.c.)
type Array[V any] struct {
	tm   *TM
	c    Codec[V]
	per  uint64 // values in a block
	tree *Tree[uint64]
	move *Tree[uint64] // the same; overwriting a block's location drops no reference
}

// NewArray makes a type of arrays.
func NewArray[V any](tm *TM, c Codec[V]) *Array[V] {
	a := &Array[V]{tm: tm, c: c, per: uint64((BlockSize - arrayHead) / c.Size)}
	a.tree = NewTree(tm, U64).Refs(tm.IncAll, a.drop, func(x, y []byte) bool { return le.Uint64(x) == le.Uint64(y) })
	a.move = NewTree(tm, U64).Refs(tm.IncAll, a.drop, func(x, y []byte) bool { return true })
	return a
}

func (a *Array[V]) drop(values []byte, n int) error {
	for i := range n {
		if err := a.tm.Dec(le.Uint64(values[8*i:])); err != nil {
			return err
		}
	}
	return nil
}

// Empty makes an array without values.
func (a *Array[V]) Empty() (root uint64, err error) { return a.tree.Empty() }

// New makes an array of size values, calling value for each in order.
func (a *Array[V]) New(size uint64, value func(i uint64) (V, error)) (root uint64, err error) {
	if root, err = a.Empty(); err != nil {
		return 0, err
	}
	for begin := uint64(0); begin < size; begin += a.per {
		if root, err = a.addBlock(root, begin, min(size, begin+a.per), value); err != nil {
			return 0, err
		}
	}
	return root, nil
}

// addBlock appends a block with the values from begin to end.
func (a *Array[V]) addBlock(root, begin, end uint64, value func(i uint64) (V, error)) (uint64, error) {
	s, err := a.tm.New(kindArray)
	if err != nil {
		return 0, err
	}
	p := s.Data()
	le.PutUint32(p[4:], uint32(a.per))
	le.PutUint32(p[8:], uint32(end-begin))
	le.PutUint32(p[12:], uint32(a.c.Size))
	for i := begin; i < end; i++ {
		v, err := value(i)
		if err != nil {
			return 0, err
		}
		a.c.Put(a.at(p, i), v)
	}
	return a.tree.Insert(root, s.nr, begin/a.per)
}

// at returns the bytes of value i in its block.
func (a *Array[V]) at(p []byte, i uint64) []byte {
	off := arrayHead + int(i%a.per)*a.c.Size
	return p[off : off+a.c.Size]
}

// check rejects blocks of other types of arrays.
func (a *Array[V]) check(b Block) error {
	if size := le.Uint32(b.data[12:]); size != uint32(a.c.Size) || le.Uint32(b.data[4:]) != uint32(a.per) {
		return corrupt(b.nr, "array of values of %d bytes, want %d", size, a.c.Size)
	}
	return nil
}

func (a *Array[V]) length(b Block) uint64 { return uint64(le.Uint32(b.data[8:])) }

func (a *Array[V]) read(nr uint64) (Block, error) {
	b, err := a.tm.bm.Read(nr, kindArray)
	if err != nil {
		return b, err
	}
	return b, a.check(b)
}

// Get returns value i, or ENODATA if the array is shorter.
func (a *Array[V]) Get(root, i uint64) (v V, err error) {
	nr, err := a.tree.Lookup(root, i/a.per)
	if err != nil {
		return v, In("array", err)
	}
	b, err := a.read(nr)
	if err != nil {
		return v, In("array", under(err, root))
	}
	if i%a.per >= a.length(b) {
		return v, syscall.ENODATA
	}
	return a.c.Get(a.at(b.Bytes(), i)), nil
}

// Set changes value i. It returns ENODATA if the array is shorter.
func (a *Array[V]) Set(root, i uint64, v V) (newRoot uint64, err error) {
	if _, err := a.Get(root, i); err != nil {
		return root, err
	}
	root, s, err := a.shadow(root, i/a.per)
	if err == nil {
		a.c.Put(a.at(s.Data(), i), v)
	}
	return root, err
}

// shadow returns a block that may be changed. It shadows the path to the block
// first: if the path is shared, this adds the block's second reference.
func (a *Array[V]) shadow(root, index uint64) (uint64, Shadow, error) {
	nr, err := a.tree.Lookup(root, index)
	if err != nil {
		return root, Shadow{}, In("array", err)
	}
	if root, err = a.tree.Insert(root, nr, index); err != nil {
		return root, Shadow{}, In("array", err)
	}
	s, _, err := a.tm.Shadow(nr, kindArray)
	if err == nil {
		err = a.check(s.Block)
	}
	if err != nil {
		return root, s, In("array", err)
	}
	root, err = a.move.Insert(root, s.nr, index)
	return root, s, In("array", err)
}

// Resize changes the number of values from size to newSize; new values are fill.
func (a *Array[V]) Resize(root, size, newSize uint64, fill V) (newRoot uint64, err error) {
	if newSize < size {
		return a.shrink(root, size, newSize)
	}
	value := func(uint64) (V, error) { return fill, nil }
	if stop := min(newSize, (size+a.per-1)/a.per*a.per); size < stop {
		if root, err = a.setLength(root, size/a.per, stop%a.per); err != nil {
			return root, err
		}
		for ; size < stop; size++ {
			if root, err = a.Set(root, size, fill); err != nil {
				return root, err
			}
		}
	}
	for ; size < newSize; size = min(newSize, size+a.per) {
		if root, err = a.addBlock(root, size, min(newSize, size+a.per), value); err != nil {
			return root, err
		}
	}
	return root, nil
}

// setLength sets the number of values in a block; 0 means full.
func (a *Array[V]) setLength(root, index, n uint64) (uint64, error) {
	if n == 0 {
		n = a.per
	}
	root, s, err := a.shadow(root, index)
	if err == nil {
		le.PutUint32(s.data[8:], uint32(n))
	}
	return root, err
}

func (a *Array[V]) shrink(root, size, newSize uint64) (newRoot uint64, err error) {
	for i := (newSize + a.per - 1) / a.per; i*a.per < size; i++ {
		if root, err = a.tree.Remove(root, i); err != nil {
			return root, In("array", err)
		}
	}
	if newSize%a.per != 0 {
		return a.setLength(root, newSize/a.per, newSize%a.per)
	}
	return root, nil
}

// Del drops a reference to an array; the last one frees it.
func (a *Array[V]) Del(root uint64) error { return In("array", a.tree.Del(root)) }

// Walk calls fn for all values in order.
func (a *Array[V]) Walk(root uint64, fn func(i uint64, v V) error) error {
	return In("array", a.tree.Walk(root, func(index, nr uint64) error {
		b, err := a.read(nr)
		if err != nil {
			return err
		}
		for i := range a.length(b) {
			if err := fn(index*a.per+i, a.c.Get(a.at(b.Bytes(), i))); err != nil {
				return err
			}
		}
		return nil
	}))
}
