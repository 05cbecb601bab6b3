package thinmeta

import "math"

// perNode is the largest number of references in a node.
const perNode = 252

// InsertCost is an upper bound of the metadata blocks that Insert allocates.
func (t *Thin) InsertCost(block uint64) uint64 {
	if t.m.plenty == 0 {
		// Includes the growth of the trees in one transaction.
		t.m.plenty = 4096 + 2*t.m.cost(64, 4*perNode, 16*perNode)
	}
	if t.m.FreeMetadata() >= t.m.plenty {
		return t.m.plenty // enough for any Insert
	}
	nodes, shared := t.nodes(block)
	return t.m.cost(nodes, 2+perNode*min(shared, 1), perNode*shared)
}

// RemoveCost is an upper bound of the metadata blocks that RemoveRange allocates to
// unmap n mapped blocks, the first and last of which are at the ends of the range. At
// both ends nodes are copied and merged with neighbours, which may be shared even if
// the path to them is not; the nodes in between only lose a reference.
func (t *Thin) RemoveCost(begin, end, n uint64) uint64 {
	nodes1, shared1 := t.nodes(begin)
	nodes2, shared2 := t.nodes(end - 1)
	nodes, shared := nodes1+nodes2, shared1+shared2
	return t.m.cost(nodes, n+6*perNode, perNode*(nodes+3*shared)+n/50)
}

// nodes is an upper bound of the nodes that a change at a block needs in the trees of
// mappings, and of how many of them are shared.
func (t *Thin) nodes(block uint64) (nodes, shared uint64) {
	nodes, shared, err := t.m.maps.StoreCost(t.m.super.MappingRoot, uint64(t.id), block)
	if err != nil {
		return math.MaxInt32, 0 // the change will return the error
	}
	return nodes, shared
}

// cost is an upper bound of the metadata blocks for a change of so many nodes,
// reference counts of data blocks, and reference counts of shared metadata blocks.
func (m *Metadata) cost(nodes, data, shared uint64) uint64 {
	d, err1 := m.data.Cost(data)
	s, err2 := m.tm.Map().Cost(shared)
	if err1 != nil || err2 != nil {
		return math.MaxInt32
	}
	return nodes + d + s
}
