package thinrescue

import (
	"udm/pdata"
	"udm/targets/thin/thinmeta"
)

// trees is what can be read of a device tree and a details tree.
type trees struct {
	roots        map[uint32]uint64
	details      map[uint32]thinmeta.Details
	whole        bool // the device tree is
	detailsWhole bool
}

// maxVolumes bounds what is believed of a tree. It is 16 times what a pool of the largest
// size can use.
const maxVolumes = 1 << 20

// readTrees reads both trees, passing over damage.
func (p *Pool) readTrees(mappingRoot, detailsRoot uint64) *trees {
	t := &trees{roots: map[uint32]uint64{}, details: map[uint32]thinmeta.Details{}}
	t.whole = p.leaves(mappingRoot, 8, func(l pdata.Leaf, i int) {
		t.roots[uint32(l.Key(i))] = le.Uint64(l.Value(i))
	})
	t.detailsWhole = p.leaves(detailsRoot, thinmeta.DetailsSize, func(l pdata.Leaf, i int) {
		t.details[uint32(l.Key(i))] = thinmeta.DetailsCodec.Get(l.Value(i))
	})
	return t
}

// leaves calls fn for each entry of a tree whose keys are ids, and reports whether all
// of it can be read.
func (p *Pool) leaves(root uint64, size int, fn func(l pdata.Leaf, i int)) bool {
	w := treeWalk{p: p, size: size, fn: fn, whole: true}
	w.visit(root, span{0, lastID + 1}, 0)
	return w.whole
}

type treeWalk struct {
	p     *Pool
	size  int
	fn    func(pdata.Leaf, int)
	seen  int
	whole bool
}

func (w *treeWalk) visit(nr uint64, s span, depth int) {
	n, err := w.p.node(nr, s, w.size, depth)
	if err != nil || w.seen > maxVolumes {
		w.whole = false
		if nr != 0 || w.p.Source == BySuperblock {
			w.p.damaged(nr)
		}
		return
	}
	w.p.reached.Add(nr, nr+1)
	if n.Internal() {
		for i := range n.Len() {
			w.visit(le.Uint64(n.Value(i)), s.child(n, i), depth+1)
		}
		return
	}
	w.seen += n.Len()
	for i := range n.Len() {
		w.fn(n, i)
	}
}
