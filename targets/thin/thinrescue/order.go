package thinrescue

import (
	"cmp"
	"maps"
	"slices"

	"udm/pdata"
	"udm/targets/thin/thinmeta"
)

// compare orders states by age, by what is certain, by whether there are details that fit,
// and by what is likely.
func (s *search) compare(a, b *pair) int {
	e := s.later(a, b)
	return cmp.Or(cmp.Compare(a.parts(), b.parts()), cmp.Compare(e.sure, 0), cmp.Compare(e.likely, 0),
		cmp.Compare(a.age(), b.age()), cmp.Compare(a.newest(), b.newest()), cmp.Compare(a.used(), b.used()), cmp.Compare(a.nr(), b.nr()))
}

func (p *pair) each(fn func(*top)) {
	for _, t := range []*top{p.mapping, p.details} {
		if t != nil {
			fn(t)
		}
	}
}

func (p *pair) parts() (n int) { p.each(func(*top) { n++ }); return n }

func (p *pair) used() (n int) { p.each(func(t *top) { n += btoi(t.used) }); return n }

func (p *pair) nr() (nr uint64) { p.each(func(t *top) { nr = t.nr }); return nr }

// age is the latest time in a state.
func (p *pair) age() (age uint32) { p.each(func(t *top) { age = max(age, t.info.age) }); return age }

// newest is how many mappings have that time.
func (p *pair) newest() uint64 {
	if p.mapping == nil {
		return 0
	}
	return p.mapping.info.newest
}

// volumes are the details; nil: they are not known.
func (p *pair) volumes() map[uint32]thinmeta.Details {
	if p.details == nil {
		return nil
	}
	return p.details.trees.details
}

// evidence is what tells which of two states of a pool, a or b, is the later one: positive
// for a. Nodes have no generation, but what is in them has times, and the time of a pool
// never goes back: it goes on with each snapshot.
//
//   - A block that both states map, at different times: the later mapping is of the later
//     state.
//   - An entry that only one state has was made or removed between them. If it is from a time
//     before the latest one in the other state, it cannot have been made after that state, so
//     it was removed, and the other state is the later one. Otherwise it was more likely made.
//
// The same holds for volumes and the times when they were made and snapshotted.
type evidence struct{ sure, likely int }

// both weighs an entry of both states by its times.
func (e *evidence) both(a, b uint32) { e.sure += cmp.Compare(a, b) }

// only weighs an entry with a time that one state has, a if sign is 1. latest is the latest
// time in the other one.
func (e *evidence) only(time, latest uint64, sign int) {
	if time < latest {
		e.sure -= sign
	} else {
		e.likely += sign
	}
}

// later compares two states by what is in them. Details count first, if they are certain: a
// block of an old tree of mappings may have become one of a later tree.
func (s *search) later(a, b *pair) (e evidence) {
	x, y := a.volumes(), b.volumes()
	e.volumes(x, y, 1)
	e.volumes(y, x, -1)
	if e.sure != 0 || a.mapping == nil || b.mapping == nil {
		return e
	}
	most := [2]int{maxCompared, maxCompared}
	for _, id := range slices.Sorted(maps.Keys(a.mapping.trees.roots)) {
		root, other := a.mapping.trees.roots[id], b.mapping.trees.roots[id]
		if other != 0 && root != other && (x == nil || y == nil || x[id].Created == y[id].Created) {
			s.blocks(&e, root, other, b.age(), 1, &most[0])
			s.blocks(&e, other, root, a.age(), -1, &most[1])
		}
	}
	return e
}

// volumes weighs the details of one state, if those of both are known. Volumes are made in
// transactions, whose numbers do not go back either.
func (e *evidence) volumes(these, others map[uint32]thinmeta.Details, sign int) {
	if these == nil || others == nil {
		return
	}
	var time, transaction uint64 // the latest ones of the others
	for _, o := range others {
		time = max(time, uint64(o.Created), uint64(o.Snapshotted))
		transaction = max(transaction, o.TransactionID)
	}
	for id, d := range these {
		o, ok := others[id]
		switch {
		case !ok:
			e.only(uint64(d.Created), time, sign)
			e.only(d.TransactionID, transaction, sign)
		case sign > 0:
			e.both(d.Created, o.Created)
			e.both(d.Snapshotted, o.Snapshotted)
		}
	}
}

// maxCompared is how many leaves of two states are compared, and maxInner how many inner nodes
// of two volumes.
const (
	maxCompared = 64
	maxInner    = 512
)

// blocks weighs the mappings of a volume in one state that are not the other's.
func (s *search) blocks(e *evidence, root, other uint64, latest uint32, sign int, most *int) {
	shared := &pdata.BlockSet{}
	inner := [2]int{maxInner, maxInner}
	s.nodes(other, 0, &inner[0], func(nr uint64) bool { shared.Add(nr, nr+1); return true })
	s.nodes(root, 0, &inner[1], func(nr uint64) bool {
		if shared.Has(nr) || *most == 0 {
			return false
		}
		if n, err := s.pool.node(nr, allKeys, 8, 0); err == nil && !n.Internal() {
			*most--
			s.leaf(e, n, other, latest, sign)
		}
		return true
	})
}

// leaf weighs the mappings in a leaf.
func (s *search) leaf(e *evidence, n pdata.Leaf, other uint64, latest uint32, sign int) {
	for i := range n.Len() {
		m := thinmeta.BlockTimeOf(le.Uint64(n.Value(i)))
		switch o, state := s.pool.lookUp(other, n.Key(i)); {
		case state == Hole:
			e.only(uint64(m.Time), uint64(latest), sign)
		case state == Mapped && sign > 0:
			e.both(m.Time, o.Time)
		}
	}
}

// nodes calls fn for the nodes of mappings below a root, and goes below those for which it
// returns true, while there are inner nodes left.
func (s *search) nodes(nr uint64, depth int, inner *int, fn func(nr uint64) bool) {
	if i := s.info(nr); !fn(nr) || i == nil || i.level == 0 || *inner == 0 {
		return
	}
	*inner--
	n, err := s.pool.node(nr, allKeys, 8, depth)
	for j := 0; err == nil && j < n.Len(); j++ {
		s.nodes(le.Uint64(n.Value(j)), depth+1, inner, fn)
	}
}

// lookUp finds what a tree maps a block to.
func (p *Pool) lookUp(root, block uint64) (thinmeta.BlockTime, State) {
	nr, s := root, allKeys
	for depth := 0; ; depth++ {
		n, err := p.node(nr, s, 8, depth)
		if err != nil {
			return thinmeta.BlockTime{}, Lost
		}
		i := lower(n, block)
		switch {
		case i < 0 || !n.Internal() && n.Key(i) != block:
			return thinmeta.BlockTime{}, Hole
		case !n.Internal():
			return thinmeta.BlockTimeOf(le.Uint64(n.Value(i))), Mapped
		}
		nr, s = le.Uint64(n.Value(i)), s.child(n, i)
	}
}
