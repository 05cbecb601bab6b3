package thinrescue

import (
	"cmp"
	"hash/maphash"
	"maps"
	"slices"

	"udm/pdata"
)

// maxTops is how many roots of each kind are compared with each other.
const maxTops = 256

var seed = maphash.MakeSeed()

// top is a node that may be the root of a device tree or of details.
type top struct {
	nr      uint64
	info    *info
	trees   *trees
	ids     uint64 // hash of its ids
	created uint64 // transaction in which its newest volume was made
	used    bool   // an index says that it is in use
	fits    bool   // there are details that fit it
}

// pair is a device tree with details.
type pair struct {
	mapping, details *top
	fits             int // volumes that have as many mappings as their details say
	misfits          int
}

// bestTrees returns the newest trees that fit each other, and all device trees: those
// with fitting details first, then the newest. The pair is empty if there are none.
func (s *search) bestTrees() (best pair, tops []*top) {
	tops, dets := s.tops(devices), s.tops(details)
	s.markUsed(append(slices.Clone(tops), dets...))
	for _, m := range tops {
		for _, d := range dets {
			c := s.pair(m, d)
			m.fits = m.fits || c.misfits == 0
			if c.better(&best) {
				best = c
			}
		}
	}
	slices.SortFunc(tops, func(a, b *top) int { return cmp.Or(btoi(b.fits)-btoi(a.fits), b.compare(a)) })
	if best.mapping == nil && len(tops) > 0 {
		best.mapping = tops[0]
	}
	if best.mapping == nil && len(dets) > 0 {
		best.details = slices.MaxFunc(dets, (*top).compare)
	}
	return best, tops
}

// tops returns the newest roots of a kind.
func (s *search) tops(k kind) []*top {
	inside := s.inside(k)
	var list []*top
	s.infos.each(func(nr uint64, i *info) {
		if i.kind == none || s.info(nr) == nil || i.kind != k || inside.Has(nr) {
			return
		}
		list = append(list, s.top(nr, i))
		if len(list) == 2*maxTops {
			list = newest(list)
		}
	})
	budget := uint64(maxVolumes)
	list = slices.DeleteFunc(newest(list), func(t *top) bool {
		fits := t.info.entries <= budget
		budget -= min(budget, t.info.entries)
		return !fits
	})
	for _, t := range list {
		s.read(t)
	}
	return list
}

func newest(list []*top) []*top {
	slices.SortFunc(list, func(a, b *top) int { return b.compare(a) })
	return list[:min(len(list), maxTops)]
}

// inside is the nodes of a kind that have parents.
func (s *search) inside(k kind) *pdata.BlockSet {
	set := &pdata.BlockSet{}
	s.infos.each(func(nr uint64, i *info) {
		if i.kind == none || s.info(nr) == nil || i.kind != k || i.level == 0 {
			return
		}
		if n, err := pdata.ReadNode(s.pool.bm, nr); err == nil {
			for j := range n.Len() {
				c := le.Uint64(n.Value(j))
				set.Add(c, c+1)
			}
		}
	})
	return set
}

func (s *search) top(nr uint64, i *info) *top { return &top{nr: nr, info: i} }

// read reads the tree of a root.
func (s *search) read(t *top) {
	q := *s.pool // whose damage does not count
	q.reached, q.Damaged = pdata.BlockSet{}, nil
	if t.info.kind == devices {
		t.trees = q.readTrees(t.nr, 0)
		t.ids = hash(maps.Keys(t.trees.roots))
		return
	}
	t.trees = q.readTrees(0, t.nr)
	t.ids = hash(maps.Keys(t.trees.details))
	for _, d := range t.trees.details {
		t.created = max(t.created, d.TransactionID)
	}
}

func hash(ids func(func(uint32) bool)) uint64 {
	var h maphash.Hash
	h.SetSeed(seed)
	for _, id := range slices.Sorted(ids) {
		maphash.WriteComparable(&h, id)
	}
	return h.Sum64()
}

// compare orders roots of one kind by age. In a pool that grows, and among those of the
// same time, the newest has most entries of that time.
func (t *top) compare(o *top) int {
	a, b := t.info, o.info
	return cmp.Or(cmp.Compare(a.age, b.age), cmp.Compare(a.newest, b.newest), cmp.Compare(t.nr, o.nr))
}

// pair compares a device tree with details.
func (s *search) pair(m, d *top) pair {
	c := pair{mapping: m, details: d}
	if m.ids != d.ids {
		c.misfits = 1 + max(len(m.trees.roots), len(d.trees.details))
		return c
	}
	for id, root := range m.trees.roots {
		i, want := s.info(root), d.trees.details[id].Mapped
		switch {
		case i != nil && (i.entries == want || i.broken > 0 && i.entries < want):
			c.fits++
		case i != nil || want == 0:
			c.misfits++
		}
	}
	return c
}

// better reports whether a pair is better than another one, which may be empty.
func (p *pair) better(o *pair) bool {
	if o.mapping == nil {
		return p.misfits == 0
	}
	count := func(p *pair) int { return btoi(p.mapping.used) + btoi(p.details.used) }
	return cmp.Or(-cmp.Compare(p.misfits, o.misfits), cmp.Compare(p.details.created, o.details.created), cmp.Compare(p.age(), o.age()),
		cmp.Compare(p.mapping.info.newest, o.mapping.info.newest), cmp.Compare(count(p), count(o)), cmp.Compare(p.details.nr, o.details.nr)) > 0
}

func (p *pair) age() uint32 { return max(p.mapping.info.age, p.details.info.age) }

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// maxIndexes is how many indexes of space maps are looked at.
const maxIndexes = 256

// markUsed marks roots that are in use according to an index that is in use itself.
func (s *search) markUsed(tops []*top) {
	for _, x := range s.indexes[:min(len(s.indexes), maxIndexes)] {
		if u := s.index(x); u != nil {
			for _, t := range tops {
				has, known := u.Has(t.nr)
				t.used = t.used || has && known
			}
		}
	}
}

// index returns a space map if it says that it is in use itself.
func (s *search) index(nr uint64) *pdata.Used {
	u, err := pdata.ReadUsed(s.pool.bm, nr)
	if err != nil {
		return nil
	}
	if has, known := u.Has(nr); known && !has {
		return nil
	}
	return u
}

// usedFor returns the space map in which both roots are in use. If several are, it is
// not known which one is right.
func (s *search) usedFor(p pair) (found *pdata.Used) {
	for _, x := range s.indexes {
		u := s.index(x)
		if u == nil || p.mapping != nil && !has(u, p.mapping.nr) || p.details != nil && !has(u, p.details.nr) {
			continue
		}
		if found != nil {
			return nil
		}
		found = u
	}
	return found
}

func has(u *pdata.Used, nr uint64) bool {
	used, known := u.Has(nr)
	return used && known
}
