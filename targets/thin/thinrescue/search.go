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
	var older []*top
	if p.Source == BySuperblock {
		if u, err := pdata.ReadUsed(p.bm, sb.Metadata.BitmapRoot); err == nil {
			s.used = u
		}
		_, older = s.bestTrees()
	} else {
		older = s.chooseTrees(sb, t)
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
func (p *Pool) giveOlder(older []*top) {
	for _, v := range p.Volumes {
		for _, t := range older {
			if root, ok := t.trees.roots[v.ID]; ok && v.Orphan == 0 && root != v.root && !slices.Contains(v.older, root) {
				v.older = append(v.older, root)
			}
		}
	}
}

// chooseTrees takes the trees of a damaged superblock, if they fit, or the best others.
func (s *search) chooseTrees(sb *thinmeta.Super, t *trees) (older []*top) {
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

// missingVolumes finds the mappings of volumes of which only details are left: by older
// trees, whose roots must be in use and have as many mappings as they should, or by that
// number alone.
func (s *search) missingVolumes(older []*top) {
	p := s.pool
	have := map[uint32]bool{}
	for _, v := range p.Volumes {
		have[v.ID] = true
	}
	missing := slices.DeleteFunc(slices.Sorted(maps.Keys(p.details)), func(id uint32) bool { return have[id] || id > thinmeta.MaxID })
	byCount := s.rootsByCount()
	wanted := map[uint64]int{}
	for _, id := range missing {
		wanted[p.details[id].Mapped]++
	}
	for _, id := range missing {
		d := p.details[id]
		v := &Volume{ID: id, Found: true}
		if d.Mapped == 0 {
			v.Found = !p.exact
		} else if roots := byCount[d.Mapped]; len(roots) == 1 && wanted[d.Mapped] == 1 {
			v.root = cmp.Or(s.hinted(older, id, d.Mapped), roots[0])
		} else {
			v.root = cmp.Or(s.hinted(older, id, d.Mapped), s.stale(older, id))
		}
		if v.root == 0 && d.Mapped > 0 {
			v.rootless = Lost
		}
		p.add(v)
	}
	s.onlyOlder(older)
	slices.SortFunc(p.Volumes, func(a, b *Volume) int { return int(a.ID) - int(b.ID) })
}

// onlyOlder adds the volumes that only older trees have, if nothing tells which volumes
// there are.
func (s *search) onlyOlder(older []*top) {
	p := s.pool
	if len(p.details) > 0 || p.Source == BySuperblock && len(p.Volumes) > 0 {
		return
	}
	have := map[uint32]bool{}
	for _, v := range p.Volumes {
		have[v.ID] = true
	}
	for _, t := range older {
		for _, id := range slices.Sorted(maps.Keys(t.trees.roots)) {
			if !have[id] {
				have[id] = true
				p.add(&Volume{ID: id, root: t.trees.roots[id], Found: true})
			}
		}
	}
}

// hinted is the root that an older tree has for a volume, if it can be the present one.
func (s *search) hinted(older []*top, id uint32, mapped uint64) uint64 {
	for _, t := range older {
		root, ok := t.trees.roots[id]
		if i := s.info(root); ok && s.used != nil && s.live(root) && i.whole() && i.kind == mappings && i.entries == mapped {
			return root
		}
	}
	return 0
}

// stale is the root of the newest older tree that has a volume.
func (s *search) stale(older []*top, id uint32) uint64 {
	for _, t := range older {
		if root, ok := t.trees.roots[id]; ok && s.info(root) != nil {
			return root
		}
	}
	return 0
}

// rootsByCount returns the nodes that nothing leads to and that are in use for certain, by
// the number of their mappings.
func (s *search) rootsByCount() map[uint64][]uint64 {
	roots := map[uint64][]uint64{}
	s.loose(func(nr uint64, i *info) {
		if i.whole() && i.entries > 0 && s.used != nil && has(s.used, nr) {
			roots[i.entries] = append(roots[i.entries], nr)
		}
	})
	return roots
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
