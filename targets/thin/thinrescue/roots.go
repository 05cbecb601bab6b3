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
	nr    uint64
	info  *info
	trees *trees
	ids   uint64 // hash of its ids
	used  bool   // an index says that it is in use
}

// pair is a state of the pool: a device tree, and details that fit it. One of them may be nil.
type pair struct{ mapping, details *top }

// bestTrees returns the latest state of the pool that can be found, and those of all device
// trees, the latest first. The first one is empty if there is none.
func (s *search) bestTrees() (best pair, states []pair) {
	tops, dets := s.tops(devices), s.tops(details)
	s.markUsed(append(slices.Clone(tops), dets...))
	states = make([]pair, len(tops))
	for i, m := range tops {
		states[i] = s.state(m, dets)
	}
	slices.SortStableFunc(states, func(a, b pair) int { return s.compare(&b, &a) })
	if len(states) > 0 {
		best = states[0]
	}
	for _, d := range dets { // perhaps the device tree of a later state is lost
		alone := pair{details: d}
		if best == (pair{}) || best.mapping == nil && s.compare(&alone, &best) > 0 || s.later(&alone, &best).sure > 0 {
			best = alone
		}
	}
	return best, states
}

// state returns a device tree with the latest details that fit it.
func (s *search) state(m *top, dets []*top) pair {
	best := pair{mapping: m}
	for _, d := range dets {
		if c := (pair{m, d}); s.fits(m, d) && (best.details == nil || s.compare(&c, &best) > 0) {
			best = c
		}
	}
	return best
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

// inside is the nodes of a kind that have parents. Nodes of old trees do not count whose
// children have become something else.
func (s *search) inside(k kind) *pdata.BlockSet {
	set := &pdata.BlockSet{}
	s.infos.each(func(nr uint64, i *info) {
		if i.kind == none || s.info(nr) == nil || i.kind != k || i.level == 0 {
			return
		}
		if n, err := pdata.ReadNode(s.pool.bm, nr); err == nil && 2*int(i.broken) < n.Len() {
			for j := range n.Len() {
				c := le.Uint64(n.Value(j))
				set.Add(c, c+1)
			}
		}
	})
	return set
}

func (s *search) top(nr uint64, i *info) *top { return &top{nr: nr, info: i} }

// quietly reads trees whose damage does not count.
func (s *search) quietly(mappingRoot, detailsRoot uint64) *trees {
	q := *s.pool
	q.reached, q.Damaged = pdata.BlockSet{}, nil
	return q.readTrees(mappingRoot, detailsRoot)
}

// read reads the tree of a root.
func (s *search) read(t *top) {
	if t.info.kind == devices {
		t.trees = s.quietly(t.nr, 0)
		t.ids = hash(maps.Keys(t.trees.roots))
		return
	}
	t.trees = s.quietly(0, t.nr)
	t.ids = hash(maps.Keys(t.trees.details))
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

// fits reports whether a device tree and details are of the same volumes, and each has as
// many mappings as its details say, as far as they can be read.
func (s *search) fits(m, d *top) bool {
	if m.ids != d.ids {
		return false
	}
	for id, root := range m.trees.roots {
		i, want := s.info(root), d.trees.details[id].Mapped
		switch {
		case i == nil && want > 0, i != nil && i.entries == want, i != nil && i.broken > 0 && i.entries < want:
		default:
			return false
		}
	}
	return true
}

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

// usedFor returns the space map in which a state is in use. If several are, it is not known
// which one is right.
func (s *search) usedFor(p pair) (found *pdata.Used) {
	for _, x := range s.indexes {
		u := s.index(x)
		if u == nil || !s.allUsed(u, p) {
			continue
		}
		if found != nil {
			return nil
		}
		found = u
	}
	return found
}

// allUsed reports whether all roots of a state are in use.
func (s *search) allUsed(u *pdata.Used, p pair) bool {
	all := true
	p.each(func(t *top) { all = all && has(u, t.nr) })
	if p.mapping != nil && p.mapping.trees != nil {
		for _, root := range p.mapping.trees.roots {
			all = all && (s.info(root) == nil || has(u, root))
		}
	}
	return all
}

func has(u *pdata.Used, nr uint64) bool {
	used, known := u.Has(nr)
	return used && known
}
