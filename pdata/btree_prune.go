package pdata

// Prune takes a tree of one level apart, a portion at a time, without copying what
// it shares with other trees. Each portion drops leaves that no other tree has. In
// between the tree is whole: every node but the root has max/3 entries or more. The
// leaves are removed from one parent, which may then be merged with a neighbour.
// When all leaves are shared, Del drops the rest, which is a reference for each.

// Pruned is what Prune did.
type Pruned struct {
	Root    uint64 // of the tree now
	Removed uint64 // entries
	Next    uint64 // the key to go on from
	Done    bool   // no leaf is left from there on that is the tree's own, but for a root
}

// pruneVisits bounds the nodes that Prune looks at for leaves to drop.
const pruneVisits = 64

// Prune drops leaves that only this tree has, the first of them at or after key
// from, until about most entries are gone. The tree must belong to the caller: its
// root has one reference, or nothing is done.
func (t *Tree[V]) Prune(root, from uint64, most int) (Pruned, error) {
	p := pruner{t: &t.t, left: pruneVisits, done: Pruned{Root: root, Next: from}}
	shared, err := p.t.tm.sm.shared(root)
	if err == nil && !shared {
		err = p.run(root, from, most)
	}
	p.done.Done = p.done.Removed == 0 && !p.stopped
	return p.done, err
}

type pruner struct {
	t       *tree
	path    []place // from the root to the parent of the leaves
	left    int     // nodes that may still be looked at
	stopped bool    // there were more
	done    Pruned
}

func (p *pruner) run(root, from uint64, most int) error {
	found, err := p.find(root, from, 0)
	if err != nil || !found || len(p.path) == 0 {
		return err
	}
	nodes, err := p.shadowPath(root)
	if err != nil {
		return err
	}
	last := len(nodes) - 1
	if err := p.dropLeaves(nodes[last], p.path[last].i, most); err != nil {
		return err
	}
	if err := p.refill(nodes); err != nil {
		return err
	}
	return p.lower(nodes[0])
}

// find descends to the first leaf at or after key that nobody shares.
func (p *pruner) find(nr, key uint64, depth int) (found bool, err error) {
	if depth == maxDepth {
		return false, tooDeep(nr)
	}
	n, err := p.t.read(nr, 0)
	if err != nil || n.leaf() {
		return err == nil, err
	}
	if p.left--; p.left < 0 {
		p.stopped, p.done.Next = true, n.key(0)
		return false, nil
	}
	for i := max(n.lower(key), 0); i < n.count() && !found && !p.stopped && err == nil; i++ {
		found, err = p.findBelow(n, i, key, depth)
	}
	return found, under(err, nr)
}

func (p *pruner) findBelow(n node, i int, key uint64, depth int) (bool, error) {
	shared, err := p.t.tm.sm.shared(n.child(i))
	if err != nil || shared {
		return false, err
	}
	p.path = append(p.path, place{n: n, i: i})
	found, err := p.find(n.child(i), key, depth+1)
	if !found {
		p.path = p.path[:len(p.path)-1]
	}
	return found, err
}

// shadowPath makes the nodes of the path changeable.
func (p *pruner) shadowPath(root uint64) ([]wnode, error) {
	n, err := p.t.shadow(root, 0)
	if err != nil {
		return nil, err
	}
	p.done.Root = n.nr
	nodes := []wnode{n}
	for _, at := range p.path[:len(p.path)-1] {
		if n, err = p.t.child(n, at.i, 0); err != nil {
			return nil, err
		}
		nodes = append(nodes, n)
	}
	return nodes, nil
}

// dropLeaves drops own leaves among the children of n from child i on. A node
// keeps one child.
func (p *pruner) dropLeaves(n wnode, i int, most int) error {
	for i < n.count() && n.count() > 1 && p.done.Removed < uint64(most) {
		nr := n.child(i)
		shared, err := p.t.tm.sm.shared(nr)
		if err != nil {
			return err
		}
		if shared {
			p.done.Next = n.key(i) + 1
			i++
			continue
		}
		if err := p.dropLeaf(nr); err != nil {
			return under(err, n.nr)
		}
		n.remove(i, i+1)
	}
	return nil
}

func (p *pruner) dropLeaf(nr uint64) error {
	leaf, err := p.t.read(nr, 0)
	if err != nil {
		return err
	}
	if !leaf.leaf() {
		return corrupt(nr, "leaf and internal node side by side")
	}
	if c := leaf.count(); c > 0 {
		p.done.Removed += uint64(c)
		p.done.Next = leaf.key(c-1) + 1
	}
	if err := p.t.delChildren(leaf, 0, 0); err != nil {
		return under(err, nr)
	}
	return p.t.tm.Dec(nr)
}

// refill merges nodes of the path that have become too empty with a neighbour, or
// takes entries from it.
func (p *pruner) refill(nodes []wnode) error {
	for d := len(nodes) - 1; d > 0; d-- {
		n, above := nodes[d], nodes[d-1]
		if n.count() >= n.max()/3 || above.count() == 1 {
			continue
		}
		s := &spine{t: p.t, cur: above}
		if err := s.balance2(0, min(p.path[d-1].i, above.count()-2)); err != nil {
			return err
		}
	}
	return nil
}

// lower makes the only child of a root the root.
func (p *pruner) lower(root wnode) error {
	if root.count() > 1 {
		return nil
	}
	p.done.Root = root.child(0) // whose reference is that of the new root
	return p.t.tm.Dec(root.nr)
}
