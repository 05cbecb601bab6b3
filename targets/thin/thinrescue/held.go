package thinrescue

import (
	"slices"

	"udm/targets/thin/thinmeta"
)

// readHeld reads the device trees that metadata snapshots hold.
func (s *search) readHeld() {
	s.held = map[uint64]*trees{}
	for _, nr := range s.copies {
		if s.used == nil || !has(s.used, nr) {
			continue
		}
		if sb, err := thinmeta.ReadSuperAt(s.pool.bm, nr); err == nil {
			s.held[sb.MappingRoot] = s.quietly(sb.MappingRoot, 0)
		}
	}
}

// presentFirst puts the states first whose device trees are in use and not held: they are
// parts of the present one.
func (s *search) presentFirst(states []pair) {
	present := func(c pair) int {
		return btoi(s.used != nil && s.held[c.mapping.nr] == nil && has(s.used, c.mapping.nr))
	}
	slices.SortStableFunc(states, func(a, b pair) int { return present(b) - present(a) })
}
