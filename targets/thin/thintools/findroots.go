package thintools

import (
	"maps"
	"slices"

	"udm/pdata"
	"udm/targets/thin/thinmeta"
)

// A rootFinder examines every block of a metadata device for possible roots. It tells
// the type of a node by its values: details are 24 bytes long; the values of a device
// tree are block numbers on the device; those of mappings are not, because they have
// the time in their low bits. A parent has the type of its children.

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
	values   uint64 // entries in its leaves: devices, for device trees and details
	mappings uint64 // mapped blocks below it
	low      uint64
	high     uint64
	age      uint32            // latest time in it
	times    map[uint32]uint64 // mappings by time
}

type rootFinder struct {
	bm         *pdata.BlockManager
	blocks     uint64
	infos      map[uint64]*nodeInfo // nil: examined, not usable
	referenced map[uint64]bool
}

type foundRoots struct {
	mapping, details uint64
	time             uint32
}

func newRootFinder(bm *pdata.BlockManager) *rootFinder {
	return &rootFinder{bm, bm.Blocks(), map[uint64]*nodeInfo{}, map[uint64]bool{}}
}

// best returns the youngest pair of trees that match: the same devices and the same
// number of mappings.
func (f *rootFinder) best() (foundRoots, bool) {
	var tops, details []*nodeInfo
	for nr := range f.blocks {
		f.info(nr)
	}
	for nr := range f.blocks {
		switch i := f.infos[nr]; {
		case i == nil || f.referenced[nr]:
		case i.typ == typeTop:
			tops = append(tops, i)
		case i.typ == typeDetails:
			details = append(details, i)
		}
	}
	var top, det *nodeInfo
	for _, d := range details {
		for _, t := range tops {
			if d.values == t.values && d.mappings == t.mappings && f.sameIDs(d, t) && (top == nil || younger(d, t, det, top)) {
				top, det = t, d
			}
		}
	}
	if top == nil {
		return foundRoots{}, false
	}
	return foundRoots{top.nr, det.nr, max(top.age, det.age)}, true
}

// younger compares candidate pairs by the number of mappings of the latest times,
// then by the age of their details.
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
func (f *rootFinder) sameIDs(d, t *nodeInfo) bool {
	ids := func(root uint64, size int) (ids []uint64) {
		err := pdata.WalkLeaves(f.bm, root, size, nil, func(l pdata.Leaf) error {
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
	return slices.Equal(ids(d.nr, thinmeta.DetailsSize), ids(t.nr, 8))
}

// info examines a block once. It returns nil if the block is not usable; a block that
// leads to itself is not.
func (f *rootFinder) info(nr uint64) *nodeInfo {
	if i, ok := f.infos[nr]; ok {
		return i
	}
	f.infos[nr] = nil
	n, err := pdata.ReadNode(f.bm, nr)
	if err != nil {
		return nil
	}
	i := &nodeInfo{nr: nr, times: map[uint32]uint64{}}
	switch {
	case n.Internal():
		i = f.internal(i, n)
	case n.Size() == thinmeta.DetailsSize:
		i.details(n)
	case n.Size() == 8:
		i = f.leaf(i, n)
	default:
		return nil
	}
	f.infos[nr] = i
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
		d := thinmeta.DetailsCodec.Get(n.Value(j))
		i.age = max(i.age, d.Created, d.Snapshotted)
		i.mappings += d.Mapped
	}
}

// leaf examines a leaf of the device tree or of mappings.
func (f *rootFinder) leaf(i *nodeInfo, n pdata.Leaf) *nodeInfo {
	i.keys(n)
	if f.isTop(n) {
		return f.join(i, n, typeTop, func(c *nodeInfo) bool { return c.typ == typeBottom || c.values == 0 })
	}
	i.typ, i.mappings = typeBottom, uint64(n.Len())
	for j := range n.Len() {
		t := thinmeta.BlockTimeOf(le.Uint64(n.Value(j))).Time
		i.times[t]++
		i.age = max(i.age, t)
	}
	return i
}

func (f *rootFinder) isTop(n pdata.Leaf) bool {
	for j := range n.Len() {
		if le.Uint64(n.Value(j)) >= f.blocks {
			return false
		}
	}
	return true
}

// internal examines an internal node: all children must have one type and be in
// order.
func (f *rootFinder) internal(i *nodeInfo, n pdata.Leaf) *nodeInfo {
	first := f.info(le.Uint64(n.Value(0)))
	if first == nil {
		return nil
	}
	high, any := uint64(0), false
	i.low = first.low
	i = f.join(i, n, first.typ, func(c *nodeInfo) bool {
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

// join adds up the children of a node, unless one of them is not good.
func (f *rootFinder) join(i *nodeInfo, n pdata.Leaf, typ nodeType, good func(*nodeInfo) bool) *nodeInfo {
	i.typ = typ
	for j := range n.Len() {
		c := f.info(le.Uint64(n.Value(j)))
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
		f.referenced[le.Uint64(n.Value(j))] = true
	}
	return i
}
