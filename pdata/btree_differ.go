package pdata

import "bytes"

// Differ calls fn for the keys from key on, in order, at which two trees of one
// level differ, until it returns false; va or vb is nil where a tree lacks the key.
// What both trees share is not read: so the work is that of what differs, wherever
// the roots come from. It ends after about most nodes, too. What it has not looked
// at begins at next, if more says that there is such.
func (t *Tree[V]) Differ(a, b, key uint64, most int, fn func(key uint64, va, vb *V) bool) (next uint64, more bool, err error) {
	d := differ{t: &t.t, from: key, most: most}
	if err := d.begin(a, b); err != nil {
		return key, true, err
	}
	value := func(p []byte) *V {
		if p == nil {
			return nil
		}
		v := t.c.Get(p)
		return &v
	}
	return d.run(func(key uint64, va, vb []byte) bool { return fn(key, value(va), value(vb)) })
}

// differ walks two trees side by side. Each side has a head: the next entry, or the
// next subtree, which is passed over if the other side's head is the same one and
// entered otherwise.
type differ struct {
	t     *tree
	sides [2]side
	from  uint64
	most  int // nodes that may still be read
}

// side is the way to the head of a tree.
type side struct {
	root   uint64
	path   []place // empty: the head is the root, or nothing is left
	height int
	begun  bool
}

// head is what comes next on a side.
type head struct {
	key     uint64
	subtree uint64 // its root; 0: it is an entry
	value   []byte
	height  int
	none    bool
}

func (d *differ) begin(roots ...uint64) error {
	for i, root := range roots {
		s := &d.sides[i]
		s.root = root
		for nr := root; ; s.height++ {
			n, err := d.t.walkNode(nr, s.height, keyRange{})
			if err != nil {
				return err
			}
			if n.leaf() || n.count() == 0 {
				break
			}
			nr = n.child(0)
		}
	}
	return nil
}

func (d *differ) run(fn func(key uint64, va, vb []byte) bool) (next uint64, more bool, err error) {
	for {
		a, b := d.sides[0].head(d.from), d.sides[1].head(d.from)
		at := min(a.key, b.key)
		switch {
		case a.none && b.none:
			return 0, false, nil
		case d.most <= 0 && at > d.from:
			return at, true, nil
		case a.subtree != 0 && a.subtree == b.subtree:
			d.sides[0].pass()
			d.sides[1].pass()
		case a.entersBefore(b):
			err = d.enter(&d.sides[0])
		case b.subtree != 0 && b.key <= at:
			err = d.enter(&d.sides[1])
		default:
			if !d.entries(a, b, fn) {
				return at + 1, at+1 != 0, nil
			}
		}
		if err != nil {
			return at, true, err
		}
	}
}

// entersBefore reports whether a is a subtree to be entered before anything is done
// about b: one that begins earlier, or the higher one of two that begin together.
func (a head) entersBefore(b head) bool {
	return a.subtree != 0 && (a.key < b.key || a.key == b.key && (b.subtree == 0 || a.height >= b.height))
}

// entries tells of the entries that are at the heads, the earlier one or both.
func (d *differ) entries(a, b head, fn func(key uint64, va, vb []byte) bool) bool {
	key := min(a.key, b.key)
	if a.key > key || a.none {
		a.value = nil
	} else {
		d.sides[0].pass()
	}
	if b.key > key || b.none {
		b.value = nil
	} else {
		d.sides[1].pass()
	}
	return a.value != nil && b.value != nil && bytes.Equal(a.value, b.value) || fn(key, a.value, b.value)
}

// head is what comes next on a side. Where nothing does, its key is the highest
// one: no entry of the other side comes after it.
func (s *side) head(from uint64) head {
	if !s.begun {
		return head{key: from, subtree: s.root, height: s.height}
	}
	if len(s.path) == 0 {
		return head{key: ^uint64(0), none: true}
	}
	p := s.path[len(s.path)-1]
	h := head{key: max(from, p.n.key(p.i)), height: s.height - len(s.path)}
	if p.n.leaf() {
		h.value = p.n.values(p.i, p.i+1)
	} else {
		h.subtree = p.n.child(p.i)
	}
	return h
}

// pass leaves the head behind.
func (s *side) pass() {
	s.begun = true
	for len(s.path) > 0 {
		p := &s.path[len(s.path)-1]
		if p.i++; p.i < p.n.count() {
			return
		}
		s.path = s.path[:len(s.path)-1]
	}
}

// enter makes the first part of the head, a subtree, that may have keys from d.from
// on the head.
func (d *differ) enter(s *side) error {
	nr, r := s.root, keyRange{}
	if s.begun {
		p := s.path[len(s.path)-1]
		nr, r = p.n.child(p.i), p.r.of(p.n, p.i)
	}
	s.begun = true
	d.most--
	n, err := d.t.walkNode(nr, len(s.path), r)
	for i := len(s.path) - 1; err != nil && i >= 0; i-- {
		err = under(err, s.path[i].n.nr)
	}
	if err != nil {
		return err
	}
	i := max(n.lower(d.from), 0)
	if n.leaf() && i < n.count() && n.key(i) < d.from {
		i++
	}
	s.path = append(s.path, place{n, i, r})
	if i == n.count() {
		s.pass()
	}
	return nil
}
