package pdata

// states are the states of a space map that an allocation must respect. A block
// may be given out only if it is free in all of them: what an earlier state uses
// must stay as it is while a crash could lead back to that state.
//
//	running   cur: what the owner changes
//	          old: as of the last commit, or of the last seal
//	sealed    disk: as of the commit before that, while the sealed transaction is
//	          being written; nil otherwise
type states struct {
	cur, old ll
	disk     *ll
}

// seal ends the running transaction. The caller calls durable when that
// transaction is on disk.
func (s *states) seal() {
	disk := s.old
	s.old, s.disk = s.cur.snapshot(), &disk
}

// durable allows blocks to be used again that the sealed transaction freed.
func (s *states) durable() { s.disk = nil }

// find finds a block in [begin, end) that is free in all states and not refused;
// nil refuses none. ENOSPC if there is none.
func (s *states) find(begin, end uint64, refuse func(uint64) bool) (uint64, error) {
	for {
		nr, err := s.cur.find(begin, end)
		if err != nil {
			return 0, err
		}
		used, err := s.usedBefore(nr)
		if err != nil {
			return 0, err
		}
		if !used && (refuse == nil || !refuse(nr)) {
			return nr, nil
		}
		begin = nr + 1
	}
}

// usedBefore reports whether an earlier state uses a block.
func (s *states) usedBefore(nr uint64) (bool, error) {
	used, err := s.old.uses(nr)
	if used || err != nil || s.disk == nil {
		return used, err
	}
	return s.disk.uses(nr)
}

// uses reports whether a block is in use. Blocks beyond the map are not.
func (l *ll) uses(nr uint64) (bool, error) {
	if nr >= l.root.Blocks {
		return false, nil
	}
	n, err := l.lookup(nr)
	return n != 0, err
}
