package pdata

import (
	"errors"
)

// Checker examines everything reachable from a superblock without trusting any of
// it, counts the references to metadata blocks, and reports damage.
type Checker struct {
	bm     *BlockManager
	Refs   *RefCounts
	Damage func(*Corrupt) // called for each finding
	Lax    bool           // nodes may be emptier than the rules allow
	Seen   func()         // called for each node that is read; may be nil

	known map[uint64]summary // of the nodes walked so far
}

// NewChecker makes a checker that reads through bm.
func NewChecker(bm *BlockManager, damage func(*Corrupt)) *Checker {
	return &Checker{bm: bm, Refs: NewRefCounts(), Damage: damage, known: map[uint64]summary{}}
}

// summary describes a subtree, which may be shared.
type summary struct {
	entries   uint64 // in its leaves
	low, high uint64 // lowest and highest key, if it has entries
	size      int    // of its values
	bad       bool
}

// Leaf is a leaf to read.
type Leaf struct{ node }

// Len is the number of entries.
func (l Leaf) Len() int { return l.count() }

// Key is the key of entry i.
func (l Leaf) Key(i int) uint64 { return l.key(i) }

// Value is the value of entry i.
func (l Leaf) Value(i int) []byte { return l.values(i, i+1) }

// Tree walks a tree of one level whose values have size bytes. It calls leaf,
// which may be nil, for each leaf that was not walked before. It returns the
// number of entries and whether the whole tree could be walked.
func (c *Checker) Tree(name string, root uint64, size int, leaf func(Leaf)) (entries uint64, whole bool) {
	w := treeWalk{c: c, name: name, size: size, leaf: leaf}
	s := w.visit(root, keyRange{})
	return s.entries, !s.bad
}

// Entries is the number of entries in a tree; ok is false unless the whole tree
// was walked.
func (c *Checker) Entries(root uint64) (n uint64, ok bool) {
	s, ok := c.known[root]
	return s.entries, ok && !s.bad
}

type treeWalk struct {
	c    *Checker
	name string
	size int
	leaf func(Leaf)
	path []uint64
}

func (w *treeWalk) damage(nr uint64, reason string) summary {
	w.c.Damage(&Corrupt{Block: nr, Path: append([]uint64(nil), w.path...), Tree: w.name, Reason: reason})
	return summary{bad: true, size: w.size}
}

func (w *treeWalk) visit(nr uint64, r keyRange) summary {
	w.path = append(w.path, nr)
	defer func() { w.path = w.path[:len(w.path)-1] }()
	if w.c.Refs.Add(nr, 1) > 1 {
		if s, ok := w.c.known[nr]; ok {
			return w.again(nr, s, r)
		}
		return w.damage(nr, "block is used for something else too")
	}
	s := w.walk(nr, r)
	s.size = w.size
	w.c.known[nr] = s
	return s
}

// again checks a node that was walked before against its new position.
func (w *treeWalk) again(nr uint64, s summary, r keyRange) summary {
	switch {
	case s.size != w.size:
		return w.damage(nr, "node is in trees of different types")
	case s.entries > 0 && (s.low < r.low || r.limited && s.high >= r.high):
		return w.damage(nr, "keys of a shared node lie outside the range that the node above gives")
	}
	return s
}

func (w *treeWalk) walk(nr uint64, r keyRange) summary {
	w.c.known[nr] = summary{bad: true, size: w.size} // in case of a cycle
	n, reason := w.node(nr)
	if reason != "" {
		return w.damage(nr, reason)
	}
	if err := r.check(n); err != nil {
		return w.damage(nr, reasonOf(err))
	}
	c := n.count()
	if len(w.path) > 1 && c < n.max()/3 && !w.c.Lax {
		w.damage(nr, "node is too empty")
	}
	if n.leaf() {
		if w.leaf != nil {
			w.leaf(Leaf{n})
		}
		if c == 0 {
			return summary{}
		}
		return summary{entries: uint64(c), low: n.key(0), high: n.key(c - 1)}
	}
	return w.children(n, r)
}

func (w *treeWalk) children(n node, r keyRange) (sum summary) {
	for i := range n.count() {
		s := w.visit(n.child(i), r.of(n, i))
		if s.entries > 0 {
			if sum.entries == 0 {
				sum.low = s.low
			}
			sum.high = s.high
		}
		sum.entries += s.entries
		sum.bad = sum.bad || s.bad
	}
	return sum
}

func (w *treeWalk) node(nr uint64) (n node, reason string) {
	if len(w.path) > maxDepth {
		return n, "tree is too deep"
	}
	if w.c.Seen != nil {
		w.c.Seen()
	}
	p, err := w.c.bm.get(nr, kindNode, true)
	if err != nil {
		return n, reasonOf(err)
	}
	n = node{Block{nr, p.data}}
	if n.leaf() && n.size() != w.size {
		return n, "values have the wrong size"
	}
	return n, ""
}

func reasonOf(err error) string {
	var c *Corrupt
	if errors.As(err, &c) {
		return c.Reason
	}
	return err.Error()
}

// WalkLeaves calls fn for every leaf of a tree of one level whose values have
// size bytes, in order. It passes the error of an unreadable subtree to damage
// and skips the subtree; if damage is nil the walk ends with the error.
func WalkLeaves(bm *BlockManager, root uint64, size int, damage func(error), fn func(Leaf) error) error {
	t := tree{tm: &TM{bm: bm}, levels: 1, size: size, hidden: true, damage: damage}
	err := t.walk(root, 0, keyRange{}, func(n node) error { return fn(Leaf{n}) })
	return err
}

// ReadNode reads a node of any tree.
func ReadNode(bm *BlockManager, nr uint64) (Leaf, error) {
	p, err := bm.get(nr, kindNode, true)
	if err != nil {
		return Leaf{}, err
	}
	return Leaf{node{Block{nr, p.data}}}, nil
}

// Internal reports whether the node has children instead of values.
func (l Leaf) Internal() bool { return !l.leaf() }

// Size is the size of the node's values in bytes.
func (l Leaf) Size() int { return l.size() }
