package pdata

// This file bounds the metadata blocks that a change can take, so that the caller
// can make sure of enough free space before it starts. The bounds are in blocks
// and assume that every node on the path is copied and split.

// depth is the height in nodes of a tree of one level.
func (t *tree) depth(root uint64) (uint64, error) {
	for d := uint64(1); d <= maxDepth; d++ {
		n, err := t.read(root, 0)
		if err != nil {
			return 0, err
		}
		if n.leaf() {
			return d, nil
		}
		root = n.child(0)
	}
	return 0, corrupt(root, "tree is too deep")
}

// StoreCost bounds the cost of setting or removing the value of a key: nodes is
// the number of the tree's own nodes, and shared the number of shared nodes that
// may be copied; copying one adds a reference to everything it points to.
func (t *Tree[V]) StoreCost(root uint64, keys ...uint64) (nodes, shared uint64, err error) {
	for _, key := range keys {
		nodes += 2 // splitting the root
		for depth := 0; ; depth++ {
			n, err := t.t.read(root, 0)
			if err != nil || depth == maxDepth {
				return 0, 0, err
			}
			nodes += 3
			if others, err := t.t.tm.sm.shared(root); err != nil {
				return 0, 0, err
			} else if others || shared > 0 {
				shared++
			}
			i := n.lower(key)
			if n.leaf() {
				if i < 0 || n.size() != 8 {
					return nodes, shared, nil
				}
				root = n.child(i)
				break
			}
			root = n.child(max(i, 0))
		}
	}
	return nodes, shared, nil
}

// cost bounds the blocks that changing the counts of n blocks takes.
func (l *ll) cost(n uint64) (uint64, error) {
	const perLeaf = 56 // least number of bitmaps in a leaf of the index
	all := (l.root.Blocks + perBitmap - 1) / perBitmap
	bitmaps := min(n, all)
	sum := bitmaps
	if l.tree != nil {
		depth, err := l.tree.t.depth(l.root.BitmapRoot)
		if err != nil {
			return 0, err
		}
		sum += 2 * min(bitmaps*depth, all/perLeaf+2*depth)
	}
	refs, err := l.refsCost(n)
	return sum + refs, err
}

// refsCost is the reference count tree's part of cost. A leaf of it that is not
// the root counts at least 112 blocks.
func (l *ll) refsCost(n uint64) (uint64, error) {
	const perLeaf = 112
	depth, err := l.refs.t.depth(l.root.RefRoot)
	leaves := l.root.Blocks / perLeaf
	if depth <= 1 {
		leaves = 0
	}
	return min(3*n*depth, 2*leaves+n/perLeaf+3*depth+8), err
}

// Cost bounds the metadata blocks that changing the counts of n data blocks
// takes.
func (m *SpaceMap) Cost(n uint64) (uint64, error) { return m.cur.cost(n) }

// Cost bounds the blocks that the metadata map itself takes while other
// structures change. n is the number of counts changed of blocks that are or
// become shared.
func (m *MetadataMap) Cost(n uint64) (uint64, error) {
	refs, err := m.cur.refsCost(n)
	return (m.cur.root.Blocks+perBitmap-1)/perBitmap + refs, err
}
