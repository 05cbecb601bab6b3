package thinrescue

import (
	"cmp"
	"slices"
)

// maxRounds is how often what was found is searched for damage of its own.
const maxRounds = 4

// fill looks for what was below damaged nodes.
func (s *search) fill() {
	p := s.pool
	for range maxRounds {
		before := len(p.lost)
		s.attribute()
		for _, v := range p.Volumes {
			p.survey(v)
		}
		if len(p.lost) == before {
			break
		}
	}
	for _, v := range p.Volumes {
		s.complete(v)
	}
}

// maxHoles is with how many damaged nodes what was found is compared.
const maxHoles = 4096

// hole is a damaged node without anything that stands in for it.
type hole struct {
	nr uint64
	*lost
}

// attribute gives the nodes that nothing leads to to the damaged nodes that they can have
// been below. Where several can, or where they overlap, it is not known.
func (s *search) attribute() {
	p := s.pool
	var holes []hole
	for nr, l := range p.lost {
		if len(l.stands) == 0 && l.level != 0 && (s.used != nil || l.level > 0) {
			holes = append(holes, hole{nr, l})
		}
	}
	if len(holes) == 0 || len(holes) > maxHoles {
		return
	}
	slices.SortFunc(holes, func(a, b hole) int { return cmp.Or(cmp.Compare(a.low, b.low), cmp.Compare(a.nr, b.nr)) })
	s.loose(func(nr uint64, i *info) {
		if h := only(holes, i); h != nil && i.entries > 0 {
			h.stands = append(h.stands, standIn{nr, i.low, i.high})
		}
	})
	for _, h := range holes {
		s.settle(h.lost)
	}
}

// only returns the one damaged node that can have been above a node.
func only(holes []hole, i *info) *lost {
	var found *lost
	for _, h := range holes {
		if h.low > i.low {
			break
		}
		if i.high >= h.high || h.level >= 0 && int(i.level) != h.level-1 {
			continue
		}
		if found != nil {
			return nil
		}
		found = h.lost
	}
	return found
}

// settle sorts what was found. Of what overlaps, the newest counts if there is no space
// map that tells what is in use; otherwise nothing does.
func (s *search) settle(l *lost) {
	newer := func(a, b standIn) int {
		x, y := s.info(a.nr), s.info(b.nr)
		return cmp.Or(-cmp.Compare(x.age, y.age), -cmp.Compare(x.newest, y.newest), -cmp.Compare(a.nr, b.nr))
	}
	if s.used == nil {
		slices.SortFunc(l.stands, newer)
		kept := l.stands[:0:0]
		for _, in := range l.stands {
			i, _ := slices.BinarySearchFunc(kept, in.low, func(k standIn, low uint64) int { return cmp.Compare(k.low, low) })
			if (i == 0 || kept[i-1].high < in.low) && (i == len(kept) || in.high < kept[i].low) {
				kept = slices.Insert(kept, i, in)
			}
		}
		l.stands = kept
		return
	}
	slices.SortFunc(l.stands, func(a, b standIn) int { return cmp.Compare(a.low, b.low) })
	var kept []standIn
	high, any := uint64(0), false // of those before
	for i, in := range l.stands {
		if !(any && high >= in.low) && !(i+1 < len(l.stands) && l.stands[i+1].low <= in.high) {
			kept = append(kept, in)
		}
		high, any = max(high, in.high), true
	}
	l.stands = kept
}

// complete marks the damaged nodes of a volume that has all its mappings nevertheless.
func (s *search) complete(v *Volume) {
	if v.Found || v.Details == nil || !s.pool.exact || s.used == nil || v.Mapped != v.Details.Mapped {
		return
	}
	s.pool.eachLost(v.root, allKeys, 0, func(l *lost) { l.complete = true })
}

// orphans adds volumes whose ids are lost, if the space map tells what is in use.
func (s *search) orphans() {
	p := s.pool
	var roots []uint64
	s.loose(func(nr uint64, i *info) {
		if i.entries == 0 {
			return
		}
		p.Unclaimed += i.entries
		if s.used != nil && len(roots) < maxTops {
			roots = append(roots, nr)
		}
	})
	for _, nr := range roots {
		p.Unclaimed -= s.info(nr).entries
		p.add(&Volume{Orphan: nr, root: nr, Found: true})
	}
}
