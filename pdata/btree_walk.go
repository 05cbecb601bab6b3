package pdata

import "syscall"

// Walk calls fn for every entry of a tree of one level, in order. It checks that
// keys lie in the ranges given by the parent nodes, so that it ends even in a
// damaged tree. fn must not change the tree.
func (t *Tree[V]) Walk(root uint64, fn func(key uint64, v V) error) error {
	return t.t.walk(root, 0, keyRange{}, func(n node) error {
		for i := range n.count() {
			if err := fn(n.key(i), t.c.Get(n.values(i, i+1))); err != nil {
				return err
			}
		}
		return nil
	})
}

// Scan calls fn for the entries from key on in a tree of one level, in order,
// until fn returns false.
func (t *Tree[V]) Scan(root, key uint64, fn func(key uint64, v V) bool) error {
	for {
		n, i, err := t.t.nextIn(root, key, 0)
		if err == syscall.ENODATA {
			return nil
		}
		if err != nil {
			return err
		}
		for ; i < n.count(); i++ {
			if !fn(n.key(i), t.c.Get(n.values(i, i+1))) {
				return nil
			}
		}
		if key = n.key(i-1) + 1; key == 0 {
			return nil
		}
	}
}

// keyRange is the range of keys of a subtree: at least low and, if limited, less
// than high.
type keyRange struct {
	low, high uint64
	limited   bool
}

// of is the range of n's child i.
func (r keyRange) of(n node, i int) keyRange {
	c := keyRange{low: n.key(i), high: r.high, limited: r.limited}
	if i+1 < n.count() {
		c.high, c.limited = n.key(i+1), true
	}
	return c
}

func (r keyRange) check(n node) error {
	c := n.count()
	if c > 0 && (n.key(0) < r.low || r.limited && n.key(c-1) >= r.high) {
		return corrupt(n.nr, "keys %d..%d lie outside the range that the node above gives", n.key(0), n.key(c-1))
	}
	return nil
}

func (t *tree) walk(nr uint64, depth int, r keyRange, leaf func(node) error) error {
	n, err := t.walkNode(nr, depth, r)
	if err != nil {
		return t.pass(err)
	}
	if n.leaf() {
		return leaf(n)
	}
	for i := range n.count() {
		if err := t.walk(n.child(i), depth+1, r.of(n, i), leaf); err != nil {
			return under(err, nr)
		}
	}
	return nil
}

func (t *tree) walkNode(nr uint64, depth int, r keyRange) (node, error) {
	if depth == maxDepth {
		return node{}, tooDeep(nr)
	}
	n, err := t.read(nr, t.levels-1)
	if err != nil {
		return n, err
	}
	return n, r.check(n)
}

func (t *tree) pass(err error) error {
	if t.damage != nil {
		t.damage(err)
		return nil
	}
	return err
}

// Cursor iterates over the entries of a tree of one level. The tree must not
// change meanwhile. (dm_btree_cursor.)
type Cursor[V any] struct {
	t    *Tree[V]
	path []place
}

type place struct {
	n node
	i int
	r keyRange
}

// Cursor returns a cursor at the first entry; see Valid.
func (t *Tree[V]) Cursor(root uint64) (*Cursor[V], error) {
	c := &Cursor[V]{t: t}
	return c, c.down(root, keyRange{})
}

// down enters nr, then the first child of each node on the way to a leaf.
func (c *Cursor[V]) down(nr uint64, r keyRange) error {
	for {
		if len(c.path) == maxDepth {
			return tooDeep(nr)
		}
		n, err := c.t.t.read(nr, c.t.t.levels-1)
		if err == nil {
			err = r.check(n)
		}
		if err != nil {
			for i := len(c.path) - 1; i >= 0; i-- {
				err = under(err, c.path[i].n.nr)
			}
			return err
		}
		c.path = append(c.path, place{n, 0, r})
		if n.leaf() {
			if n.count() == 0 {
				return c.up()
			}
			return nil
		}
		nr, r = n.child(0), r.of(n, 0)
	}
}

// up moves to the next entry, leaving the nodes that are finished.
func (c *Cursor[V]) up() error {
	for len(c.path) > 0 {
		p := &c.path[len(c.path)-1]
		if p.i++; p.i < p.n.count() {
			if p.n.leaf() {
				return nil
			}
			return c.down(p.n.child(p.i), p.r.of(p.n, p.i))
		}
		c.path = c.path[:len(c.path)-1]
	}
	return nil
}

// Valid reports whether the cursor is at an entry.
func (c *Cursor[V]) Valid() bool { return len(c.path) > 0 }

// Key is the key of the entry.
func (c *Cursor[V]) Key() uint64 { p := c.path[len(c.path)-1]; return p.n.key(p.i) }

// Value is the value of the entry.
func (c *Cursor[V]) Value() V { p := c.path[len(c.path)-1]; return c.t.c.Get(p.n.values(p.i, p.i+1)) }

// Next goes to the next entry.
func (c *Cursor[V]) Next() error { return c.up() }
