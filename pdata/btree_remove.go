package pdata

import "syscall"

// Removal keeps every node but the root at max/3 entries or more. On the way down
// it balances the children of the current node before it enters one of them, so
// that the child it enters has an entry to spare. (dm-btree-remove.c.)

func (t *tree) remove(root uint64, keys []uint64) (newRoot uint64, err error) {
	s := &spine{t: t}
	nr, i := root, -1
	for level := range t.levels {
		if err := s.toLeaf(nr, level, i, keys[level]); err != nil {
			return s.root, err
		}
		if i = s.cur.find(keys[level]); i < 0 {
			return s.root, syscall.ENODATA
		}
		if level < t.levels-1 {
			nr = s.cur.child(i)
		}
	}
	return s.root, t.removeFrom(s.cur, i, i+1)
}

func (t *tree) removeFrom(n wnode, i, j int) error {
	if t.dec != nil {
		if err := t.dec(n.values(i, j), j-i); err != nil {
			return err
		}
	}
	n.remove(i, j)
	return nil
}

// removeRange removes, with each descent, as many entries from a leaf as it can
// without leaving it too empty.
func (t *tree) removeRange(root, begin, end uint64) (newRoot, removed uint64, err error) {
	for begin < end {
		n, i, err := t.nextIn(root, begin, 0)
		if err == syscall.ENODATA || err == nil && n.key(i) >= end {
			break
		}
		if err != nil {
			return root, removed, err
		}
		begin = n.key(i)
		s := &spine{t: t}
		if err := s.toLeaf(root, 0, -1, begin); err != nil {
			return root, removed, err
		}
		root = s.root
		if i = s.cur.find(begin); i < 0 {
			return root, removed, corrupt(s.cur.nr, "key %d is missing from its leaf", begin)
		}
		j := min(s.cur.lower(end-1)+1, i+s.spare())
		begin = s.cur.key(j-1) + 1
		removed += uint64(j - i)
		if err := t.removeFrom(s.cur, i, j); err != nil {
			return root, removed, err
		}
		if begin == 0 {
			break
		}
	}
	return root, removed, nil
}

// spare is the number of entries that the current leaf can lose.
func (s *spine) spare() int {
	if s.cur.nr == s.root {
		return s.cur.count()
	}
	return max(1, s.cur.count()-s.cur.max()/3)
}

// toLeaf descends to the leaf that contains key, if any does.
func (s *spine) toLeaf(nr uint64, level, i int, key uint64) error {
	for {
		if err := s.enter(nr, level, i); err != nil {
			return err
		}
		if !s.cur.leaf() {
			if err := s.balance(level, key); err != nil {
				return underAll(err, s.path[:s.depth])
			}
		}
		if s.cur.leaf() {
			return nil
		}
		if i = s.cur.lower(key); i < 0 {
			return syscall.ENODATA
		}
		nr = s.cur.child(i)
	}
}

// balance evens out the children around the one for key.
func (s *spine) balance(level int, key uint64) error {
	c := s.cur.count()
	if c == 1 {
		return s.pullUp(level)
	}
	i := s.cur.lower(key)
	switch {
	case i < 0:
		return syscall.ENODATA
	case i == 0:
		return s.balance2(level, 0)
	case i == c-1:
		return s.balance2(level, i-1)
	}
	return s.balance3(level, i-1)
}

// pullUp replaces the current node with its only child.
func (s *spine) pullUp(level int) error {
	nr := s.cur.child(0)
	shared, err := s.t.tm.sm.shared(nr)
	if err != nil {
		return err
	}
	n, err := s.t.read(nr, level)
	if err != nil {
		return err
	}
	if shared {
		if err := s.t.incChildren(n, level); err != nil {
			return err
		}
	}
	*s.cur.data = *n.data
	if err := s.t.tm.Dec(nr); err != nil || s.cur.leaf() || s.cur.count() != 1 {
		return err
	}
	return s.pullUpAgain(level)
}

// pullUpAgain handles an internal node with one entry whose parent also had one,
// which a well-formed tree does not have.
func (s *spine) pullUpAgain(level int) error {
	if s.depth == len(s.path) {
		return tooDeep(s.cur.nr)
	}
	s.path[s.depth] = s.cur.nr
	s.depth++
	return s.pullUp(level)
}

func (s *spine) balance2(level, i int) error {
	l, err := s.t.child(s.cur, i, level)
	if err != nil {
		return err
	}
	r, err := s.t.child(s.cur, i+1, level)
	if err != nil {
		return err
	}
	return s.mergeOrEven(l, r, i)
}

// mergeOrEven balances children i and i+1. It merges them if they hold so few
// entries that otherwise neither would have one to spare.
func (s *spine) mergeOrEven(l, r wnode, i int) error {
	if err := sameKind(l, r); err != nil {
		return err
	}
	total := l.count() + r.count()
	if total < 2*(l.max()/3+1) {
		spread([]wnode{l, r}, total, 0)
		return s.drop(r, i+1)
	}
	spread([]wnode{l, r}, total/2, total-total/2)
	s.cur.setKey(i+1, r.key(0))
	return nil
}

// drop frees a child whose entries are elsewhere now.
func (s *spine) drop(n wnode, i int) error {
	s.cur.remove(i, i+1)
	return s.t.tm.Dec(n.nr)
}

func (s *spine) balance3(level, i int) error {
	var n [3]wnode
	for j := range n {
		var err error
		if n[j], err = s.t.child(s.cur, i+j, level); err != nil {
			return err
		}
		if err := sameKind(n[0], n[j]); err != nil {
			return err
		}
	}
	l, c, r := n[0].count(), n[1].count(), n[2].count()
	total := l + c + r
	if total < 4*(n[0].max()/3)+1 {
		toLeft := min(n[0].max()-l, c)
		spread(n[:], l+toLeft, 0, r+c-toLeft)
		if n[2].count() > 0 {
			s.cur.setKey(i+2, n[2].key(0))
		}
		if err := s.drop(n[1], i+1); err != nil {
			return err
		}
		return s.mergeOrEven(n[0], n[2], i)
	}
	right := total / 3
	left := right
	if total%3 != 0 {
		left++
	}
	spread(n[:], left, total-left-right, right)
	s.cur.setKey(i+1, n[1].key(0))
	s.cur.setKey(i+2, n[2].key(0))
	return nil
}

func sameKind(a, b wnode) error {
	if a.flags() != b.flags() {
		return corrupt(b.nr, "leaf and internal node side by side")
	}
	return nil
}
