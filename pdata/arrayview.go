package pdata

// This file is about arrays that nobody changes: they are walked, checked, and
// written in one go.

// arrayBlock checks that a block of an array has values of size bytes.
func arrayBlock(bm *BlockManager, nr uint64, size int) (values []byte, n int, err error) {
	p, err := bm.get(nr, kindArray, true)
	if err != nil {
		return nil, 0, err
	}
	if have := le.Uint32(p.data[12:]); have != uint32(size) || le.Uint32(p.data[4:]) != uint32(ArrayEntries(size)) {
		return nil, 0, corrupt(nr, "array of values of %d bytes, want %d", have, size)
	}
	n = int(le.Uint32(p.data[8:]))
	return p.data[arrayHead : arrayHead+n*size], n, nil
}

// ArrayEntries is the number of values of size bytes in a block of an array.
func ArrayEntries(size int) int { return (BlockSize - arrayHead) / size }

// WalkArray calls fn for each block of an array whose values have size bytes, in
// order: values are n values, the first of which has the index first. It passes the
// error of an unreadable part to damage and skips it; if damage is nil the walk ends
// with the error.
func WalkArray(bm *BlockManager, root uint64, size int, damage func(error), fn func(first uint64, values []byte, n int) error) error {
	return WalkLeaves(bm, root, 8, damage, func(l Leaf) error {
		for i := range l.Len() {
			values, n, err := arrayBlock(bm, le.Uint64(l.Value(i)), size)
			if err == nil {
				err = fn(l.Key(i)*uint64(ArrayEntries(size)), values, n)
			} else if damage != nil {
				damage(under(err, l.Nr()))
				err = nil
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// Array walks an array whose values have size bytes, and counts the references to its
// blocks. It returns the number of values, and whether all of it could be walked.
func (c *Checker) Array(name string, root uint64, size int) (values uint64, whole bool) {
	whole = true
	_, tree := c.Tree(name, root, 8, func(l Leaf) {
		for i := range l.Len() {
			whole = c.arrayBlock(name, l.Nr(), le.Uint64(l.Value(i)), size) && whole
		}
	})
	if !tree || !whole {
		return 0, false
	}
	gap := false
	err := WalkArray(c.bm, root, size, nil, func(first uint64, _ []byte, n int) error {
		gap = gap || first != values // also if the block before is not full
		values = first + uint64(n)
		return nil
	})
	if err != nil {
		return 0, false // it was reported when it was first walked
	}
	if gap {
		c.Damage(&Corrupt{Block: root, Path: []uint64{root}, Tree: name, Reason: "the array has gaps"})
	}
	return values, !gap
}

func (c *Checker) arrayBlock(name string, leaf, nr uint64, size int) bool {
	if c.Refs.Add(nr, 1) > 1 {
		return true
	}
	if c.Seen != nil {
		c.Seen()
	}
	_, _, err := arrayBlock(c.bm, nr, size)
	if err != nil {
		c.Damage(&Corrupt{Block: nr, Path: []uint64{leaf, nr}, Tree: name, Reason: reasonOf(err)})
	}
	return err == nil
}

// ArrayBuilder writes an array from its values in order.
type ArrayBuilder struct {
	b     *Bulk
	size  int
	tree  *Builder
	block []byte // being filled; nil: none
	n     int    // values in it
}

// NewArrayBuilder returns a builder of an array whose values have size bytes.
func (b *Bulk) NewArrayBuilder(size int) *ArrayBuilder {
	return &ArrayBuilder{b: b, size: size, tree: b.NewBuilder(8)}
}

// Add appends a value.
func (a *ArrayBuilder) Add(value []byte) error {
	if a.block == nil {
		a.block = make([]byte, BlockSize)
		le.PutUint32(a.block[4:], uint32(ArrayEntries(a.size)))
		le.PutUint32(a.block[12:], uint32(a.size))
	}
	copy(a.block[arrayHead+a.n*a.size:], value[:a.size])
	if a.n++; a.n == ArrayEntries(a.size) {
		return a.put()
	}
	return nil
}

func (a *ArrayBuilder) put() error {
	le.PutUint32(a.block[8:], uint32(a.n))
	nr, err := a.b.Put(kindArray, a.block)
	if err != nil {
		return err
	}
	a.block, a.n = nil, 0
	var p [8]byte
	le.PutUint64(p[:], nr)
	index := uint64(0)
	if a.tree.any {
		index = a.tree.last + 1
	}
	return a.tree.Add(index, p[:])
}

// Finish writes the rest and returns the root.
func (a *ArrayBuilder) Finish() (root uint64, err error) {
	if a.block != nil {
		if err := a.put(); err != nil {
			return 0, err
		}
	}
	return a.tree.Finish()
}
