package thinmeta

import "math"

// perNode is the most that a node names.
const perNode = 252

// InsertCost bounds the metadata blocks that Insert takes.
func (t *Thin) InsertCost(block uint64) uint64 {
	if t.m.plenty == 0 {
		// With room for what trees grow in one transaction.
		t.m.plenty = 4096 + 2*t.m.cost(64, 4*perNode, 16*perNode)
	}
	if t.m.FreeMetadata() >= t.m.plenty {
		return t.m.plenty // not worth a look
	}
	nodes, shared := t.nodes(block)
	return t.m.cost(nodes, 2+perNode*min(shared, 1), perNode*shared)
}

// RemoveCost bounds the metadata blocks that RemoveRange takes of n mapped blocks,
// the first and the last of which are at the ends of the range. Both ends of the
// range are places where nodes are copied and joined with neighbours, which others
// may have even if the way there is the volume's own; nodes in between lose a
// reference.
func (t *Thin) RemoveCost(begin, end, n uint64) uint64 {
	nodes1, shared1 := t.nodes(begin)
	nodes2, shared2 := t.nodes(end - 1)
	nodes, shared := nodes1+nodes2, shared1+shared2
	return t.m.cost(nodes, n+6*perNode, perNode*(nodes+3*shared)+n/50)
}

// nodes bounds the nodes of the trees of mappings that a change at a block takes,
// and how many of them others have, too.
func (t *Thin) nodes(block uint64) (nodes, shared uint64) {
	nodes, shared, err := t.m.maps.StoreCost(t.m.super.MappingRoot, uint64(t.id), block)
	if err != nil {
		return math.MaxInt32, 0 // the change will find out
	}
	return nodes, shared
}

// cost bounds the metadata blocks of a change: so many nodes, counts of data blocks
// and counts of shared metadata blocks.
func (m *Metadata) cost(nodes, data, shared uint64) uint64 {
	d, err1 := m.data.Cost(data)
	s, err2 := m.tm.Map().Cost(shared)
	if err1 != nil || err2 != nil {
		return math.MaxInt32
	}
	return nodes + d + s
}
