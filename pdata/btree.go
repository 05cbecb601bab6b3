package pdata

// Codec encodes and decodes a value of a tree.
type Codec[V any] struct {
	Size int // bytes
	Put  func([]byte, V)
	Get  func([]byte) V
}

// U64 and U32 are little-endian numbers.
var (
	U64 = Codec[uint64]{8, func(p []byte, v uint64) { le.PutUint64(p, v) }, func(p []byte) uint64 { return le.Uint64(p) }}
	U32 = Codec[uint32]{4, func(p []byte, v uint32) { le.PutUint32(p, v) }, func(p []byte) uint32 { return le.Uint32(p) }}
)

// Tree is a B+tree from uint64 keys to values, or a tree of such trees. In the
// latter, each value of the upper tree is the root of a lower tree, and a key has
// several parts. A Tree is only the type of a tree; the root passed to each call
// identifies the tree. Calls that change a tree return the new root; the old one
// must not be used again in the running transaction. (dm-btree.c.)
type Tree[V any] struct {
	t tree
	c Codec[V]
}

// tree is a Tree whose values are bytes.
type tree struct {
	tm     *TM
	levels int
	size   int
	hidden bool // readers never see this tree
	buf    [64]byte
	damage func(error) // called for each subtree that walk skips; nil: walk fails instead

	// inc and dec add or drop a reference to whatever each of n values refers to;
	// nil for values that refer to nothing.
	inc, dec func(values []byte, n int) error
	// equal reports whether two values refer to the same thing; overwriting one
	// with the other then drops no reference. nil: never.
	equal func(a, b []byte) bool
}

// NewTree makes a type of trees of one level, with plain values.
func NewTree[V any](tm *TM, c Codec[V]) *Tree[V] {
	return &Tree[V]{tree{tm: tm, levels: 1, size: c.Size}, c}
}

// Levels makes keys have n parts.
func (t *Tree[V]) Levels(n int) *Tree[V] { t.t.levels = n; return t }

// Refs declares that values refer to something: see the fields inc, dec and equal
// of tree. inc and dec receive n consecutive values.
func (t *Tree[V]) Refs(inc, dec func(values []byte, n int) error, equal func(a, b []byte) bool) *Tree[V] {
	t.t.inc, t.t.dec, t.t.equal = inc, dec, equal
	return t
}

// Empty makes an empty tree.
func (t *Tree[V]) Empty() (root uint64, err error) { return t.t.empty() }

func (t *Tree[V]) put(v V) []byte {
	p := t.t.buf[:t.t.size]
	t.c.Put(p, v)
	return p
}

// Lookup returns the value of a key, or ENODATA if it is absent.
func (t *Tree[V]) Lookup(root uint64, keys ...uint64) (v V, err error) {
	n, i, err := t.t.lookup(root, keys)
	if err != nil {
		return v, err
	}
	return t.c.Get(n.values(i, i+1)), nil
}

// LookupNext finds the first key at or after the last part of keys, within the
// tree that the other parts select. ENODATA if there is none.
func (t *Tree[V]) LookupNext(root uint64, keys ...uint64) (key uint64, v V, err error) {
	n, i, err := t.t.lookupNext(root, keys)
	if err != nil {
		return 0, v, err
	}
	return n.key(i), t.c.Get(n.values(i, i+1)), nil
}

// Insert sets the value of a key.
func (t *Tree[V]) Insert(root uint64, v V, keys ...uint64) (newRoot uint64, err error) {
	newRoot, _, err = t.t.insert(root, keys, t.put(v))
	return newRoot, err
}

// InsertNotify is like Insert and reports whether the key is new.
func (t *Tree[V]) InsertNotify(root uint64, v V, keys ...uint64) (newRoot uint64, inserted bool, err error) {
	return t.t.insert(root, keys, t.put(v))
}

// Remove removes a key. It returns ENODATA if the key is absent; even then the
// new root replaces the old one.
func (t *Tree[V]) Remove(root uint64, keys ...uint64) (newRoot uint64, err error) {
	return t.t.remove(root, keys)
}

// RemoveRange removes all keys in [begin, end) from a tree of one level and
// returns their number.
func (t *Tree[V]) RemoveRange(root, begin, end uint64) (newRoot, removed uint64, err error) {
	return t.t.removeRange(root, begin, end)
}

// Del drops a reference to a tree; the last one frees it.
func (t *Tree[V]) Del(root uint64) error { return t.t.del(root, 0, 0) }

// Highest is the highest key of a tree of one level; ok is false for an empty one.
func (t *Tree[V]) Highest(root uint64) (key uint64, ok bool, err error) { return t.t.edge(root, true) }

// Lowest is the lowest key of a tree of one level; ok is false for an empty one.
func (t *Tree[V]) Lowest(root uint64) (key uint64, ok bool, err error) { return t.t.edge(root, false) }

// read returns a node. level is the level of the tree it belongs to.
func (t *tree) read(nr uint64, level int) (node, error) {
	p, err := t.tm.bm.get(nr, kindNode, t.hidden)
	if err != nil {
		return node{}, err
	}
	n := node{Block{nr, p.data}}
	return n, t.checkSize(n, level)
}

func (t *tree) checkSize(n node, level int) error {
	want := 8
	if n.leaf() && level == t.levels-1 {
		want = t.size
	}
	if n.size() != want {
		return corrupt(n.nr, "values of %d bytes, want %d", n.size(), want)
	}
	return nil
}

func (t *tree) newNode(flags uint32, size int) (wnode, error) {
	s, err := t.tm.create(kindNode, t.hidden)
	if err != nil {
		return wnode{}, err
	}
	n := wnode{node(s)}
	n.init(flags, size)
	return n, nil
}

func (t *tree) empty() (uint64, error) {
	n, err := t.newNode(flagLeaf, t.size)
	return n.nr, err
}

// shadow returns a node that may be changed. If the old node stays in use,
// everything it refers to gains a reference.
func (t *tree) shadow(nr uint64, level int) (wnode, error) {
	s, shared, err := t.tm.shadow(nr, kindNode, t.hidden)
	if err != nil {
		return wnode{}, err
	}
	n := wnode{node(s)}
	if err := t.checkSize(n.node, level); err != nil {
		return n, err
	}
	if shared {
		return n, t.incChildren(n.node, level)
	}
	return n, nil
}

func (t *tree) incChildren(n node, level int) error {
	c := n.count()
	switch {
	case !n.leaf() || level < t.levels-1:
		return t.tm.IncAll(n.values(0, c), c)
	case t.inc != nil:
		return t.inc(n.values(0, c), c)
	}
	return nil
}
