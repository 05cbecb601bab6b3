package thinrescue

import (
	"cmp"
	"maps"
	"slices"

	"udm/pdata"
	"udm/targets/thin/thinmeta"
)

// match finds the roots of volumes of which only details are left. A root must be in use for
// certain, have as many mappings as the details say, and be referred to more often than is
// accounted for: by volumes that have it, and by a metadata snapshot, whose roots are in use
// too, but mostly not any more those of volumes. Then older states of the pool, the latest
// first, tell which volume it is of.
type match struct {
	s       *search
	older   []pair
	missing []uint32
	roots   map[uint32]uint64   // that were found
	free    map[uint64]int      // references to whole roots that are not accounted for
	byCount map[uint64][]uint64 // whole roots by the number of their mappings
}

func (s *search) newMatch(older []pair) *match {
	m := &match{s: s, older: older, roots: map[uint32]uint64{}, free: map[uint64]int{}, byCount: map[uint64][]uint64{}}
	have := map[uint32]bool{}
	for _, v := range s.pool.Volumes {
		have[v.ID] = true
	}
	for _, id := range slices.Sorted(maps.Keys(s.pool.details)) {
		if !have[id] && id <= thinmeta.MaxID {
			m.missing = append(m.missing, id)
		}
	}
	m.count()
	return m
}

// count counts the references to roots.
func (m *match) count() {
	s := m.s
	if s.used == nil || len(m.missing) == 0 {
		return
	}
	s.loose(m.root)
	for _, v := range s.pool.Volumes {
		if i := s.info(v.root); i != nil && i.kind == mappings {
			m.root(v.root, i)
			m.free[v.root]--
		}
	}
	for _, t := range s.held {
		for _, root := range t.roots {
			m.free[root]--
		}
	}
}

// root notes a root that is whole.
func (m *match) root(nr uint64, i *info) {
	if _, known := m.free[nr]; known || !i.whole() || i.entries == 0 {
		return
	}
	if n, _ := m.s.used.Refs(nr); n > 0 {
		if n == pdata.ManyRefs {
			n = maxVolumes
		}
		m.free[nr] = n
		m.byCount[i.entries] = append(m.byCount[i.entries], nr)
	}
}

// run finds what it can, the most certain first.
func (m *match) run() {
	m.unchanged()
	m.changed()
	m.counted()
}

func (m *match) take(id uint32, root uint64) {
	m.roots[id] = root
	m.free[root]--
}

// open reports whether a root can be that of a volume that has none.
func (m *match) open(id uint32, root uint64) bool {
	return m.roots[id] == 0 && m.free[root] > 0 && m.s.info(root).entries == m.s.pool.details[id].Mapped
}

// unchanged takes the roots that volumes had in older states.
func (m *match) unchanged() {
	for _, c := range m.older {
		for _, id := range m.missing {
			if root := m.s.pool.had(c, id); m.open(id, root) {
				m.take(id, root)
			}
		}
	}
}

// changed takes the roots that have most in common with those that volumes had.
func (m *match) changed() {
	type candidate struct {
		id    uint32
		root  uint64
		alike int
	}
	var list []candidate
	for _, id := range m.missing {
		old := m.last(id)
		for _, root := range m.byCount[m.s.pool.details[id].Mapped] {
			if old != 0 && m.open(id, root) {
				list = append(list, candidate{id, root, m.s.alike(old, root)})
			}
		}
	}
	slices.SortStableFunc(list, func(a, b candidate) int { return cmp.Compare(b.alike, a.alike) })
	for _, c := range list {
		if c.alike > 0 && m.open(c.id, c.root) {
			m.take(c.id, c.root)
		}
	}
}

// counted takes the only root that has as many mappings as volumes should have. Several may
// share it.
func (m *match) counted() {
	wanted := map[uint64][]uint32{}
	for _, id := range m.missing {
		if m.roots[id] == 0 {
			n := m.s.pool.details[id].Mapped
			wanted[n] = append(wanted[n], id)
		}
	}
	for n, ids := range wanted {
		roots := slices.DeleteFunc(m.byCount[n], func(root uint64) bool { return m.free[root] <= 0 })
		if len(roots) == 1 && m.free[roots[0]] >= len(ids) {
			for _, id := range ids {
				m.take(id, roots[0])
			}
		}
	}
}

// last is the root that a volume had in the latest older state in which it has one that
// can be read.
func (m *match) last(id uint32) uint64 {
	for _, c := range m.older {
		root := m.s.pool.had(c, id)
		if i := m.s.info(root); root != 0 && i != nil && i.kind == mappings {
			return root
		}
	}
	return 0
}

// had is the root that a volume had in a state; 0: it was not there, or was another volume.
func (p *Pool) had(c pair, id uint32) uint64 {
	now, ok := p.details[id]
	then, known := c.volumes()[id]
	if ok && known && (then.Created != now.Created || then.TransactionID != now.TransactionID) {
		return 0
	}
	return c.mapping.trees.roots[id]
}

// maxAlike is of how many leaves of a volume mappings are compared.
const maxAlike = 16

// alike is how many mappings one tree has of another.
func (s *search) alike(old, root uint64) (n int) {
	leaves, inner := maxAlike, maxInner
	s.nodes(old, 0, &inner, func(nr uint64) bool {
		l, err := s.pool.node(nr, allKeys, 8, 0)
		if err != nil || leaves == 0 || l.Internal() {
			return err == nil && leaves > 0
		}
		leaves--
		n += s.common(l, root)
		return false
	})
	return n
}

// common is how many mappings of a leaf a tree has.
func (s *search) common(l pdata.Leaf, root uint64) (n int) {
	for i := range l.Len() {
		t, state := s.pool.lookUp(root, l.Key(i))
		n += btoi(state == Mapped && t == thinmeta.BlockTimeOf(le.Uint64(l.Value(i))))
	}
	return n
}
