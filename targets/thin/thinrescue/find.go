package thinrescue

import (
	"errors"
	"sort"

	"udm/pdata"
	"udm/targets/thin/thinmeta"
)

// maxDepth bounds the descent in a tree.
const maxDepth = 24

// span is the keys from low on, before high.
type span struct{ low, high uint64 }

var allKeys = span{0, ^uint64(0)}

// child is the span of a node's child.
func (s span) child(n pdata.Leaf, j int) span {
	if j+1 < n.Len() {
		s.high = n.Key(j + 1)
	}
	s.low = n.Key(j)
	return s
}

func (s span) holds(n pdata.Leaf) bool {
	return n.Len() == 0 || n.Key(0) >= s.low && n.Key(n.Len()-1) < s.high
}

// lost is a damaged node of a volume.
type lost struct {
	span
	level    int       // -1: not known
	stands   []standIn // what was found in its place, by keys
	complete bool      // nothing else was below it
}

// standIn is a node that nothing else leads to.
type standIn struct {
	nr        uint64
	low, high uint64 // its keys, both included
}

// State is what is known of a run of a volume's blocks.
type State uint8

const (
	Hole   State = iota // not mapped: reads as zeroes, or as the external origin
	Mapped              // to the pool's data
	Lost                // not known
)

// Run is a run of a volume's blocks that are alike.
type Run struct {
	Thin, Len uint64
	Data      uint64 // data block of the first one, if they are mapped
	State     State
	Found     bool // by search: it may be out of date, or another volume's
	older     bool // as an older transaction has it
}

var errNode = errors.New("not a node of this tree")

// node reads a node that must have its keys in a span.
func (p *Pool) node(nr uint64, s span, size, depth int) (pdata.Leaf, error) {
	n, err := pdata.ReadNode(p.bm, nr)
	switch {
	case err != nil:
		return n, err
	case depth == maxDepth || !s.holds(n) || !n.Internal() && n.Size() != size:
		return n, errNode
	}
	return n, nil
}

// Find returns the run of blocks that begins with a block and ends before end, or
// earlier.
func (v *Volume) Find(block, end uint64) Run {
	r := v.pool.find(v.root, allKeys, 0, block, v.Found)
	if v.root == 0 {
		r.State, r.Len = v.rootless, end-block
	}
	r.Len = min(r.Len, end-block)
	if r.State == Lost {
		r = v.findOlder(r)
	}
	return r
}

// findOlder looks for a lost run in the trees of older transactions, which say nothing
// about what they do not map.
func (v *Volume) findOlder(r Run) Run {
	for _, root := range v.older {
		o := v.pool.find(root, allKeys, 0, r.Thin, true)
		r.Len = min(r.Len, o.Len)
		if o.State == Mapped {
			o.Len, o.older = r.Len, true
			return o
		}
	}
	return r
}

func (p *Pool) find(nr uint64, s span, depth int, block uint64, found bool) Run {
	n, err := p.node(nr, s, 8, depth)
	if err != nil {
		return p.findLost(nr, s, depth, block, found)
	}
	i := lower(n, block)
	switch {
	case !n.Internal():
		return p.findLeaf(n, i, s, block, found)
	case i < 0:
		return Run{Thin: block, Len: n.Key(0) - block, Found: found}
	}
	return p.find(le.Uint64(n.Value(i)), s.child(n, i), depth+1, block, found)
}

// findLost looks into what stands in for a damaged node.
func (p *Pool) findLost(nr uint64, s span, depth int, block uint64, found bool) Run {
	l := p.lost[nr]
	if l == nil || depth == maxDepth {
		return Run{Thin: block, Len: s.high - block, State: Lost, Found: found}
	}
	r := Run{Thin: block, State: Lost, Found: found}
	if l.complete {
		r.State = Hole
	}
	for _, in := range l.stands {
		switch {
		case in.low < s.low || in.high >= s.high: // not of this parent
		case block < in.low:
			r.Len = in.low - block
			return r
		case block <= in.high:
			return p.find(in.nr, span{in.low, in.high + 1}, depth+1, block, found || !l.complete)
		}
	}
	r.Len = s.high - block
	return r
}

// findLeaf extends the run in a leaf.
func (p *Pool) findLeaf(n pdata.Leaf, i int, s span, block uint64, found bool) Run {
	r := Run{Thin: block, Found: found}
	if i < 0 || n.Key(i) != block {
		r.Len = s.high - block
		if i+1 < n.Len() {
			r.Len = n.Key(i+1) - block
		}
		return r
	}
	r.State, r.Data, r.Len = Mapped, thinmeta.BlockTimeOf(le.Uint64(n.Value(i))).Block, 1
	if p.beyond(r.Data) {
		r.State = Lost
		return r
	}
	for i++; i < n.Len() && n.Key(i) == block+r.Len; i++ {
		next := thinmeta.BlockTimeOf(le.Uint64(n.Value(i))).Block
		if next != r.Data+r.Len || p.beyond(next) {
			break
		}
		r.Len++
	}
	return r
}

// lower is the index of the last key that is not above a block, or -1.
func lower(n pdata.Leaf, block uint64) int {
	return sort.Search(n.Len(), func(i int) bool { return n.Key(i) > block }) - 1
}

// eachLost calls fn for the damaged nodes of a volume.
func (p *Pool) eachLost(nr uint64, s span, depth int, fn func(*lost)) {
	if k := p.known.at(nr); k != nil && k.whole {
		return
	}
	n, err := p.node(nr, s, 8, depth)
	if err != nil {
		if l := p.lost[nr]; l != nil && depth < maxDepth {
			fn(l)
			for _, in := range l.stands {
				p.eachLost(in.nr, span{in.low, in.high + 1}, depth+1, fn)
			}
		}
		return
	}
	for j := range n.Len() {
		if n.Internal() {
			p.eachLost(le.Uint64(n.Value(j)), s.child(n, j), depth+1, fn)
		}
	}
}

// Sectors is the size of a volume up to its last block that is known or lost.
func (v *Volume) Sectors() uint64 { return v.End * v.pool.BlockSectors }
