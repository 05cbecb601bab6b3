package pdata

// Bounds on the metadata blocks that a change takes, whatever it meets: so that
// there can be room before it begins. They count in blocks, as they allow for
// every node on the way being copied and split.

// depth is the number of levels of nodes of a tree of one level.
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

// StoreCost bounds what setting or removing the value of a key takes: the nodes
// of the tree itself, and how many nodes may be copied that others have, too,
// and give what they name a reference more.
func (t *Tree[V]) StoreCost(root uint64, keys ...uint64) (nodes, shared uint64, err error) {
	for _, key := range keys {
		nodes += 2 // for a root that is split
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

// cost bounds what changing the counts of n blocks takes.
func (l *ll) cost(n uint64) (uint64, error) {
	const perLeaf = 56 // bitmaps that a leaf of the index names at least
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

// refsCost is the part of the reference count tree in cost: a leaf of it that is
// not the root counts 112 blocks at least.
func (l *ll) refsCost(n uint64) (uint64, error) {
	const perLeaf = 112
	depth, err := l.refs.t.depth(l.root.RefRoot)
	leaves := l.root.Blocks / perLeaf
	if depth <= 1 {
		leaves = 0
	}
	return min(3*n*depth, 2*leaves+n/perLeaf+3*depth+8), err
}

// Cost bounds what changing the counts of n blocks of the data device takes.
func (m *SpaceMap) Cost(n uint64) (uint64, error) { return m.cur.cost(n) }

// Cost bounds what the metadata map itself takes in a change of others, which
// changes n counts of blocks that are or become shared.
func (m *MetadataMap) Cost(n uint64) (uint64, error) {
	refs, err := m.cur.refsCost(n)
	return (m.cur.root.Blocks+perBitmap-1)/perBitmap + refs, err
}
