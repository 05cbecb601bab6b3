package thinmeta

import (
	"maps"
	"slices"

	"udm/pdata"
)

// A gatherer looks at every block of a metadata device for what may be roots.
// A node tells what it is by its values: details are 24 bytes long; the values
// of a device tree are blocks of the device; those of mappings are not, since
// they have the time in their low bits. What a node is its parent is too.

type nodeType int

const (
	typeTop nodeType = iota
	typeBottom
	typeDetails
)

// nodeInfo sums up a subtree.
type nodeInfo struct {
	nr       uint64
	typ      nodeType
	values   uint64 // entries in its leaves: devices, for the trees that matter
	mappings uint64 // mapped blocks that it knows of
	low      uint64
	high     uint64
	age      uint32            // the latest time in it
	times    map[uint32]uint64 // mappings by time
}

type gatherer struct {
	bm         *pdata.BlockManager
	blocks     uint64
	infos      map[uint64]*nodeInfo // nil: looked at, of no use
	referenced map[uint64]bool
}

type foundRoots struct {
	mapping, details uint64
	time             uint32
}

func newGatherer(bm *pdata.BlockManager) *gatherer {
	return &gatherer{bm, bm.Blocks(), map[uint64]*nodeInfo{}, map[uint64]bool{}}
}

// best finds the youngest pair of trees that belong together: as many devices,
// as many mappings.
func (g *gatherer) best() (foundRoots, bool) {
	var tops, details []*nodeInfo
	for nr := range g.blocks {
		g.info(nr)
	}
	for nr := range g.blocks {
		switch i := g.infos[nr]; {
		case i == nil || g.referenced[nr]:
		case i.typ == typeTop:
			tops = append(tops, i)
		case i.typ == typeDetails:
			details = append(details, i)
		}
	}
	var top, det *nodeInfo
	for _, d := range details {
		for _, t := range tops {
			if d.values == t.values && d.mappings == t.mappings && g.sameIDs(d, t) && (top == nil || younger(d, t, det, top)) {
				top, det = t, d
			}
		}
	}
	if top == nil {
		return foundRoots{}, false
	}
	return foundRoots{top.nr, det.nr, max(top.age, det.age)}, true
}

// younger compares pairs of candidates by how many mappings they have of the
// latest times, then by the age of their details.
func younger(d, t, det, top *nodeInfo) bool {
	if c := compareTimes(t.times, top.times); c != 0 {
		return c > 0
	}
	return max(d.age, t.age) > max(det.age, top.age)
}

func compareTimes(a, b map[uint32]uint64) int {
	keys := maps.Clone(a)
	maps.Copy(keys, b)
	for _, k := range slices.Backward(slices.Sorted(maps.Keys(keys))) {
		if a[k] != b[k] {
			if a[k] > b[k] {
				return 1
			}
			return -1
		}
	}
	return 0
}

// sameIDs reports whether both trees have the same keys.
func (g *gatherer) sameIDs(d, t *nodeInfo) bool {
	ids := func(root uint64, size int) (ids []uint64) {
		err := pdata.WalkLeaves(g.bm, root, size, nil, func(l pdata.Leaf) error {
			for i := range l.Len() {
				ids = append(ids, l.Key(i))
			}
			return nil
		})
		if err != nil {
			return []uint64{^uint64(0), root}
		}
		return ids
	}
	return slices.Equal(ids(d.nr, detailsSize), ids(t.nr, 8))
}

// info looks at a block once; nil if it is of no use. A block that leads to
// itself is of no use either.
func (g *gatherer) info(nr uint64) *nodeInfo {
	if i, ok := g.infos[nr]; ok {
		return i
	}
	g.infos[nr] = nil
	n, err := pdata.ReadNode(g.bm, nr)
	if err != nil {
		return nil
	}
	i := &nodeInfo{nr: nr, times: map[uint32]uint64{}}
	switch {
	case n.Internal():
		i = g.internal(i, n)
	case n.Size() == detailsSize:
		i.details(n)
	case n.Size() == 8:
		i = g.leaf(i, n)
	default:
		return nil
	}
	g.infos[nr] = i
	return i
}

func (i *nodeInfo) keys(n pdata.Leaf) {
	i.values = uint64(n.Len())
	if n.Len() > 0 {
		i.low, i.high = n.Key(0), n.Key(n.Len()-1)
	}
}

func (i *nodeInfo) details(n pdata.Leaf) {
	i.keys(n)
	i.typ = typeDetails
	for j := range n.Len() {
		d := detailsCodec.Get(n.Value(j))
		i.age = max(i.age, d.Created, d.Snapshotted)
		i.mappings += d.Mapped
	}
}

// leaf looks at a leaf of the device tree or of mappings.
func (g *gatherer) leaf(i *nodeInfo, n pdata.Leaf) *nodeInfo {
	i.keys(n)
	if g.isTop(n) {
		return g.join(i, n, typeTop, func(c *nodeInfo) bool { return c.typ == typeBottom || c.values == 0 })
	}
	i.typ, i.mappings = typeBottom, uint64(n.Len())
	for j := range n.Len() {
		t := unpackBlockTime(le.Uint64(n.Value(j))).Time
		i.times[t]++
		i.age = max(i.age, t)
	}
	return i
}

func (g *gatherer) isTop(n pdata.Leaf) bool {
	for j := range n.Len() {
		if le.Uint64(n.Value(j)) >= g.blocks {
			return false
		}
	}
	return true
}

// internal looks at an internal node: all children must be alike and in order.
func (g *gatherer) internal(i *nodeInfo, n pdata.Leaf) *nodeInfo {
	first := g.info(le.Uint64(n.Value(0)))
	if first == nil {
		return nil
	}
	high, any := uint64(0), false
	i.low = first.low
	i = g.join(i, n, first.typ, func(c *nodeInfo) bool {
		good := c.typ == first.typ && (!any || c.low > high)
		high, any = c.high, true
		i.values += c.values
		return good
	})
	if i != nil {
		i.high = high
	}
	return i
}

// join sums up the children of a node, unless one of them is not good.
func (g *gatherer) join(i *nodeInfo, n pdata.Leaf, typ nodeType, good func(*nodeInfo) bool) *nodeInfo {
	i.typ = typ
	for j := range n.Len() {
		c := g.info(le.Uint64(n.Value(j)))
		if c == nil || !good(c) {
			return nil
		}
		i.age = max(i.age, c.age)
		i.mappings += c.mappings
		for t, k := range c.times {
			i.times[t] += k
		}
	}
	for j := range n.Len() {
		g.referenced[le.Uint64(n.Value(j))] = true
	}
	return i
}
