package thinrescue

import (
	"cmp"
	"maps"
	"slices"

	"udm/pdata"
	"udm/targets/thin/thinmeta"
)

// search finds what the superblock does not lead to.
func (p *Pool) search(sb *thinmeta.Super, t *trees) {
	s := newSearch(p)
	whole := p.Source == BySuperblock && t.whole
	var older []pair
	if p.Source == BySuperblock {
		if u, err := pdata.ReadUsed(p.bm, sb.Metadata.BitmapRoot); err == nil {
			s.used = u
		}
		_, older = s.bestTrees()
	} else {
		older = s.chooseTrees(sb, t)
	}
	s.readHeld()
	if p.Source == BySuperblock && (sb.HeldRoot == 0 || len(s.held) > 0) {
		s.presentFirst(older)
	}
	s.missingVolumes(older)
	s.fill()
	if !whole {
		s.orphans()
	}
	if p.outdated || !whole || !t.detailsWhole {
		p.giveOlder(older)
	}
}

// giveOlder tells each volume which roots it had.
func (p *Pool) giveOlder(older []pair) {
	for _, v := range p.Volumes {
		for _, c := range older {
			if root := p.had(c, v.ID); root != 0 && v.Orphan == 0 && root != v.root && !slices.Contains(v.older, root) {
				v.older = append(v.older, root)
			}
		}
	}
}

// chooseTrees takes the trees of a damaged superblock, if they fit, or the best others.
func (s *search) chooseTrees(sb *thinmeta.Super, t *trees) (older []pair) {
	p := s.pool
	best, older := s.bestTrees()
	if p.Source == ByDamaged && s.fit(sb, t) {
		best = pair{mapping: &top{nr: sb.MappingRoot}, details: &top{nr: sb.DetailsRoot}}
	} else {
		p.Source = BySearch
	}
	for _, nr := range s.copies {
		if c, err := thinmeta.ReadSuperAt(p.bm, nr); err == nil {
			p.take(&thinmeta.Super{DataBlockSize: c.DataBlockSize})
		}
	}
	s.used = s.usedFor(best)
	p.lost, p.reached, p.known = map[uint64]*lost{}, pdata.BlockSet{}, newTable[summary](p.blocks)
	t = &trees{}
	if best.mapping != nil || best.details != nil {
		t = p.readTrees(rootOf(best.mapping), rootOf(best.details))
	}
	p.adopt(t)
	return older
}

func rootOf(t *top) uint64 {
	if t == nil {
		return 0
	}
	return t.nr
}

// fit reports whether the trees of a damaged superblock are whole and fit each other.
func (s *search) fit(sb *thinmeta.Super, t *trees) bool {
	if !t.whole || !t.detailsWhole || len(t.roots) == 0 {
		return false
	}
	m, d := s.infos.at(sb.MappingRoot), s.infos.at(sb.DetailsRoot)
	if m == nil || d == nil {
		return false
	}
	a, b := s.top(sb.MappingRoot, m), s.top(sb.DetailsRoot, d)
	a.trees, b.trees = t, t
	a.ids, b.ids = hash(maps.Keys(t.roots)), hash(maps.Keys(t.details))
	return s.fits(a, b)
}

// missingVolumes adds the volumes of which only details are left. One whose root is not found
// is as it was last.
func (s *search) missingVolumes(older []pair) {
	p, m := s.pool, s.newMatch(older)
	m.run()
	for _, id := range m.missing {
		v := &Volume{ID: id, Found: true}
		if p.details[id].Mapped == 0 {
			v.Found = !p.exact
		} else if v.root = cmp.Or(m.roots[id], m.last(id)); v.root == 0 {
			v.rootless = Lost
		}
		p.add(v)
	}
	s.onlyOlder(older)
	slices.SortFunc(p.Volumes, func(a, b *Volume) int { return int(a.ID) - int(b.ID) })
}

// onlyOlder adds the volumes that only older trees have, if nothing tells all volumes that
// there are.
func (s *search) onlyOlder(older []pair) {
	p := s.pool
	if p.listed {
		return
	}
	have := map[uint32]bool{}
	for _, v := range p.Volumes {
		have[v.ID] = true
	}
	for _, c := range older {
		roots := c.mapping.trees.roots
		for _, id := range slices.Sorted(maps.Keys(roots)) {
			if !have[id] {
				have[id] = true
				p.add(&Volume{ID: id, root: roots[id], Found: true})
			}
		}
	}
}

// loose calls fn for the nodes of mappings in use that no volume reaches and no other
// such node refers to.
func (s *search) loose(fn func(nr uint64, i *info)) {
	p := s.pool
	is := func(nr uint64, i *info) bool {
		return i.kind != none && s.info(nr) != nil && i.kind == mappings && !p.reached.Has(nr) && s.live(nr)
	}
	s.infos.each(func(_ uint64, i *info) { i.below = false })
	s.infos.each(func(nr uint64, i *info) {
		if !is(nr, i) || i.level == 0 {
			return
		}
		if n, err := pdata.ReadNode(p.bm, nr); err == nil {
			for j := range n.Len() {
				if c := s.infos.at(le.Uint64(n.Value(j))); c != nil {
					c.below = true
				}
			}
		}
	})
	s.infos.each(func(nr uint64, i *info) {
		if is(nr, i) && !i.below {
			fn(nr, i)
		}
	})
}
