package pdata

import "syscall"

// TryLookup is Lookup for readers. It uses only cached blocks: ok is false if a
// block it needs is not cached. It does not allocate. Its result is valid if
// BlockManager.Version was even before the call and is unchanged after it.
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

// lookup finds a key's leaf and its index there.
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

// underAll prepends blocks, from the root down, to err's path.
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
