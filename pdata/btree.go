package pdata

import "syscall"

// Codec says how a value of a tree is stored.
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

// Tree is a B+tree from uint64 keys to values, or a tree of such trees: then
// each value of the upper one is the root of a lower one, and a key has several
// parts. A Tree is the type of the tree; which tree is meant, its root says.
// Calls that change a tree return the new root; the old one must not be used
// again in the running transaction. (dm-btree.c.)
type Tree[V any] struct {
	t tree
	c Codec[V]
}

// tree is a Tree whose values are bytes.
type tree struct {
	tm     *TM
	levels int
	size   int
	hidden bool // readers never look at this tree
	buf    [64]byte
	damage func(error) // told by walk of what it passes over; nil: it does not

	// What n values refer to gets one more user, one user less; nil for values
	// that refer to nothing.
	inc, dec func(values []byte, n int) error
	// equal reports whether two values refer to the same; then overwriting one
	// with the other drops no reference. nil: never.
	equal func(a, b []byte) bool
}

// NewTree makes a type of trees of one level, with plain values.
func NewTree[V any](tm *TM, c Codec[V]) *Tree[V] {
	return &Tree[V]{tree{tm: tm, levels: 1, size: c.Size}, c}
}

// Levels makes keys have n parts.
func (t *Tree[V]) Levels(n int) *Tree[V] { t.t.levels = n; return t }

// Refs makes values refer to something: see the fields of that name in tree.
// inc and dec get n values in a row.
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

// Lookup finds the value of a key. ENODATA if it is not there.
func (t *Tree[V]) Lookup(root uint64, keys ...uint64) (v V, err error) {
	n, i, err := t.t.lookup(root, keys)
	if err != nil {
		return v, err
	}
	return t.c.Get(n.values(i, i+1)), nil
}

// LookupNext finds the first key at or after the last of keys, within the tree
// that the others lead to. ENODATA if there is none.
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

// InsertNotify is Insert and reports whether the key is new.
func (t *Tree[V]) InsertNotify(root uint64, v V, keys ...uint64) (newRoot uint64, inserted bool, err error) {
	return t.t.insert(root, keys, t.put(v))
}

// Remove takes out a key. ENODATA if it is not there: even then the new root
// replaces the old one.
func (t *Tree[V]) Remove(root uint64, keys ...uint64) (newRoot uint64, err error) {
	return t.t.remove(root, keys)
}

// RemoveRange takes out all keys in [begin, end) of a tree of one level and
// reports how many there were.
func (t *Tree[V]) RemoveRange(root, begin, end uint64) (newRoot, removed uint64, err error) {
	return t.t.removeRange(root, begin, end)
}

// Del drops a reference to a tree; the last one frees it.
func (t *Tree[V]) Del(root uint64) error { return t.t.del(root, 0, 0) }

// Highest is the highest key of a tree of one level; ok is false for an empty one.
func (t *Tree[V]) Highest(root uint64) (key uint64, ok bool, err error) { return t.t.edge(root, true) }

// Lowest is the lowest key.
func (t *Tree[V]) Lowest(root uint64) (key uint64, ok bool, err error) { return t.t.edge(root, false) }

// TryLookup is Lookup for readers, from cached blocks only: ok is false when
// one of them is not there to be read. It does not allocate. What it found holds
// if BlockManager.Version was even before and is unchanged now.
func (t *Tree[V]) TryLookup(root uint64, keys []uint64) (v V, found, ok bool) {
	for level := 0; ; level++ {
		n, i, ok := t.t.tryOne(root, keys[level])
		if !ok || i < 0 {
			return v, false, ok
		}
		if level == t.t.levels-1 {
			if n.size() != t.t.size {
				return v, false, false
			}
			return t.c.Get(n.values(i, i+1)), true, true
		}
		root = n.child(i)
	}
}

func (t *tree) tryOne(root, key uint64) (n node, i int, ok bool) {
	for range maxDepth {
		p := t.tm.bm.peek(root)
		if p == nil || p.kind != kindNode {
			return n, 0, false
		}
		n = node{Block{root, p.data}}
		if n.leaf() {
			return n, n.find(key), true
		}
		if i = n.lower(key); i < 0 {
			return n, -1, true
		}
		root = n.child(i)
	}
	return n, 0, false
}

// read gets a node. level is that of the tree it belongs to.
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
	n := wnode{node{s.Block}}
	n.init(flags, size)
	return n, nil
}

func (t *tree) empty() (uint64, error) {
	n, err := t.newNode(flagLeaf, t.size)
	return n.nr, err
}

// shadow gets a node to change; what it refers to gets one more user if the old
// node stays in use.
func (t *tree) shadow(nr uint64, level int) (wnode, error) {
	s, shared, err := t.tm.shadow(nr, kindNode, t.hidden)
	if err != nil {
		return wnode{}, err
	}
	n := wnode{node{s.Block}}
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

// lookup finds a key's leaf and its place in it.
func (t *tree) lookup(root uint64, keys []uint64) (n node, i int, err error) {
	for level := 0; level < t.levels; level++ {
		if n, i, err = t.lookupOne(root, level, keys[level]); err != nil {
			return n, i, err
		}
		if level < t.levels-1 {
			root = n.child(i)
		}
	}
	return n, i, nil
}

func (t *tree) lookupOne(root uint64, level int, key uint64) (node, int, error) {
	var path [maxDepth]uint64
	nr := root
	for depth := range path {
		path[depth] = nr
		n, err := t.read(nr, level)
		if err != nil {
			return n, 0, underAll(err, path[:depth])
		}
		if n.leaf() {
			if i := n.find(key); i >= 0 {
				return n, i, nil
			}
			return n, 0, syscall.ENODATA
		}
		i := n.lower(key)
		if i < 0 {
			return n, 0, syscall.ENODATA
		}
		nr = n.child(i)
	}
	return node{}, 0, tooDeep(root)
}

func tooDeep(nr uint64) error { return corrupt(nr, "tree is deeper than %d nodes", maxDepth) }

// underAll puts blocks, from the root down, above those in err's path.
func underAll(err error, path []uint64) error {
	for i := len(path) - 1; i >= 0; i-- {
		err = under(err, path[i])
	}
	return err
}

func (t *tree) lookupNext(root uint64, keys []uint64) (n node, i int, err error) {
	for level := 0; level < t.levels-1; level++ {
		if n, i, err = t.lookupOne(root, level, keys[level]); err != nil {
			return n, i, err
		}
		root = n.child(i)
	}
	return t.nextIn(root, keys[t.levels-1], 0)
}

func (t *tree) nextIn(nr, key uint64, depth int) (node, int, error) {
	if depth == maxDepth {
		return node{}, 0, tooDeep(nr)
	}
	n, err := t.read(nr, t.levels-1)
	if err != nil {
		return n, 0, err
	}
	i := n.lower(key)
	if n.leaf() {
		if i < 0 || n.key(i) < key {
			i++
		}
		if i == n.count() {
			return n, 0, syscall.ENODATA
		}
		return n, i, nil
	}
	i = max(i, 0)
	m, j, err := t.nextIn(n.child(i), key, depth+1)
	if err == syscall.ENODATA && i+1 < n.count() {
		m, j, err = t.nextIn(n.child(i+1), key, depth+1)
	}
	return m, j, under(err, nr)
}

func (t *tree) edge(root uint64, highest bool) (key uint64, ok bool, err error) {
	nr := root
	for range maxDepth {
		n, err := t.read(nr, t.levels-1)
		if err != nil {
			return 0, false, err
		}
		i := 0
		if highest {
			i = n.count() - 1
		}
		switch {
		case n.count() == 0:
			return 0, false, nil
		case n.leaf():
			return n.key(i), true, nil
		}
		nr = n.child(i)
	}
	return 0, false, tooDeep(root)
}

// del drops a reference to a node; the last one drops one of each thing that
// the node refers to.
func (t *tree) del(nr uint64, level, depth int) error {
	if depth == 2*maxDepth {
		return tooDeep(nr)
	}
	ref, err := t.tm.Ref(nr)
	if err != nil {
		return err
	}
	if ref > 1 {
		return t.tm.Dec(nr)
	}
	n, err := t.read(nr, level)
	if err != nil {
		return err
	}
	if err := t.delChildren(n, level, depth); err != nil {
		return under(err, nr)
	}
	return t.tm.Dec(nr)
}

func (t *tree) delChildren(n node, level, depth int) error {
	c := n.count()
	if n.leaf() && level == t.levels-1 {
		if t.dec != nil {
			return t.dec(n.values(0, c), c)
		}
		return nil
	}
	if n.leaf() {
		level++
	}
	for i := range c {
		if err := t.del(n.child(i), level, depth+1); err != nil {
			return err
		}
	}
	return nil
}
