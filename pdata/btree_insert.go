package pdata

// spine is the path down a tree that is being changed. It keeps the current node
// and its parent, both shadowed. The parent already points to the current node.
type spine struct {
	t      *tree
	parent wnode // valid once a second node was entered
	cur    wnode
	root   uint64 // of the whole tree, after its shadowing
	depth  int
	path   [2 * maxDepth]uint64 // the nodes entered, before their shadowing, for errors
}

// enter shadows node nr, child i of the current node, and makes it the current
// node.
func (s *spine) enter(nr uint64, level, i int) error {
	if s.depth == len(s.path) {
		return tooDeep(nr)
	}
	n, err := s.t.shadow(nr, level)
	if err != nil {
		return underAll(err, s.path[:s.depth])
	}
	if s.depth == 0 {
		s.root = n.nr
	} else {
		s.cur.setChild(i, n.nr)
	}
	s.path[s.depth] = nr
	s.depth++
	s.parent, s.cur = s.cur, n
	return nil
}

// child shadows a child of n.
func (t *tree) child(n wnode, i, level int) (wnode, error) {
	c, err := t.shadow(n.child(i), level)
	if err != nil {
		return c, under(err, n.nr)
	}
	n.setChild(i, c.nr)
	return c, nil
}

func (t *tree) insert(root uint64, keys []uint64, value []byte) (newRoot uint64, inserted bool, err error) {
	s := &spine{t: t}
	nr, i, last := root, -1, t.levels-1
	for level := range t.levels {
		if i, err = s.makeRoom(nr, level, i, keys[level]); err != nil {
			return root, false, err
		}
		missing := i == s.cur.count() || s.cur.key(i) != keys[level]
		switch {
		case level == last:
			return s.root, missing, t.set(s.cur, i, keys[level], value, missing)
		case missing:
			if nr, err = t.empty(); err != nil {
				return root, false, err
			}
			var p [8]byte
			le.PutUint64(p[:], nr)
			s.cur.insert(i, keys[level], p[:])
		default:
			nr = s.cur.child(i)
		}
	}
	return root, false, nil
}

// set stores a value at index i of a leaf that has room for it.
func (t *tree) set(n wnode, i int, key uint64, value []byte, missing bool) error {
	if missing {
		n.insert(i, key, value)
		return nil
	}
	if t.dec != nil {
		if old := n.values(i, i+1); t.equal == nil || !t.equal(old, value) {
			if err := t.dec(old, 1); err != nil {
				return err
			}
		}
	}
	n.setValue(i, value)
	return nil
}

// makeRoom descends to the leaf for key in the tree at nr, whose root is value i
// of the current leaf. It makes sure that every node on the way has a free entry,
// so that a split never has to go up again. It returns the index of the key in
// the leaf.
func (s *spine) makeRoom(nr uint64, level, i int, key uint64) (int, error) {
	for top := true; ; top = false {
		if err := s.enter(nr, level, i); err != nil {
			return 0, err
		}
		if s.cur.full() && !(s.cur.leaf() && s.cur.find(key) >= 0) {
			if err := s.split(top, level, i, key); err != nil {
				return 0, err
			}
		}
		i = s.cur.lower(key)
		if s.cur.leaf() {
			if i < 0 || s.cur.key(i) != key {
				i++
			}
			return i, nil
		}
		if i < 0 {
			s.cur.setKey(0, key)
			i = 0
		}
		nr = s.cur.child(i)
	}
}

func (s *spine) split(top bool, level, i int, key uint64) error {
	if top {
		return s.splitBeneath()
	}
	return s.moveOrSplit(level, i, key)
}

// splitBeneath moves the content of a full root into two new children.
func (s *spine) splitBeneath() error {
	n := s.cur
	left, err := s.t.newNode(n.flags(), n.size())
	if err != nil {
		return err
	}
	right, err := s.t.newNode(n.flags(), n.size())
	if err != nil {
		return err
	}
	c := n.count()
	copy(left.keys(0, c), n.keys(0, c))
	copy(left.values(0, c), n.values(0, c))
	left.setCount(c)
	spread([]wnode{left, right}, c/2, c-c/2)
	clear(n.data[nodeHead:])
	n.init(flagInternal, 8)
	var p [8]byte
	for i, child := range []wnode{left, right} {
		le.PutUint64(p[:], child.nr)
		n.insert(i, child.key(0), p[:])
	}
	return nil
}

// moveOrSplit makes room in the current node, which is full and child i of its
// parent. Entries move to a neighbour that has room, unless that would break
// sharing, which costs more than it saves. Otherwise one node is added. Splitting
// one node into two is better at the edges, where keys often rise or fall
// steadily.
func (s *spine) moveOrSplit(level, i int, key uint64) error {
	anyShared := false
	for _, j := range []int{i - 1, i + 1} {
		if j < 0 || j >= s.parent.count() {
			continue
		}
		shared, spare, err := s.neighbour(level, j)
		if err != nil {
			return err
		}
		if !shared && spare >= spareForMove {
			return s.moveTo(level, i, j, key)
		}
		anyShared = anyShared || shared
	}
	c := s.parent.count()
	if anyShared || c <= 2 || i == 0 || i+1 == c {
		return s.oneToTwo(i, key)
	}
	return s.twoToThree(level, i, key)
}

func (s *spine) neighbour(level, j int) (shared bool, spare int, err error) {
	nr := s.parent.child(j)
	if shared, err = s.t.tm.sm.shared(nr); err != nil || shared {
		return shared, 0, err
	}
	n, err := s.t.read(nr, level)
	if err != nil {
		return false, 0, underAll(err, s.path[:s.depth-1])
	}
	return false, n.max() - n.count(), nil
}

// moveTo balances child i with its neighbour j.
func (s *spine) moveTo(level, i, j int, key uint64) error {
	n, err := s.t.child(s.parent, j, level)
	if err != nil {
		return err
	}
	pair := []wnode{n, s.cur}
	if j > i {
		pair[0], pair[1] = s.cur, n
	}
	total := n.count() + s.cur.count()
	spread(pair, total/2, total-total/2)
	s.parent.setKey(max(i, j), pair[1].key(0))
	s.choose(pair, key)
	return nil
}

func (s *spine) oneToTwo(i int, key uint64) error {
	right, err := s.t.newNode(s.cur.flags(), s.cur.size())
	if err != nil {
		return err
	}
	pair := []wnode{s.cur, right}
	c := s.cur.count()
	spread(pair, c/2, c-c/2)
	s.insertInParent(i+1, right)
	s.choose(pair, key)
	return nil
}

func (s *spine) twoToThree(level, i int, key uint64) error {
	// The left neighbour takes part; a child at the edge never gets here.
	left, err := s.t.child(s.parent, i-1, level)
	if err != nil {
		return err
	}
	middle, err := s.t.newNode(s.cur.flags(), s.cur.size())
	if err != nil {
		return err
	}
	three := []wnode{left, middle, s.cur}
	total := left.count() + s.cur.count()
	l, c := total/3, (total-total/3)/2
	spread(three, l, c, total-l-c)
	s.parent.setKey(i, s.cur.key(0))
	s.insertInParent(i, middle)
	s.choose(three, key)
	return nil
}

func (s *spine) insertInParent(i int, n wnode) {
	var p [8]byte
	le.PutUint64(p[:], n.nr)
	s.parent.insert(i, n.key(0), p[:])
}

// choose makes the neighbour that key belongs to the current node.
func (s *spine) choose(nodes []wnode, key uint64) {
	s.cur = nodes[0]
	for _, n := range nodes[1:] {
		if key >= n.key(0) {
			s.cur = n
		}
	}
}
