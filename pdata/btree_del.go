package pdata

// del drops a reference to a node. Dropping the last one also drops a reference
// to everything that the node refers to.
func (t *tree) del(nr uint64, level, depth int) error {
	if depth == 2*maxDepth {
		return tooDeep(nr)
	}
	ref, err := t.tm.Ref(nr)
	if err != nil {
		return err
	}
	if ref > 1 {
		return t.tm.Dec(nr)
	}
	n, err := t.read(nr, level)
	if err != nil {
		return err
	}
	if err := t.delChildren(n, level, depth); err != nil {
		return under(err, nr)
	}
	return t.tm.Dec(nr)
}

func (t *tree) delChildren(n node, level, depth int) error {
	c := n.count()
	if n.leaf() && level == t.levels-1 {
		if t.dec != nil {
			return t.dec(n.values(0, c), c)
		}
		return nil
	}
	if n.leaf() {
		level++
	}
	for i := range c {
		if err := t.del(n.child(i), level, depth+1); err != nil {
			return err
		}
	}
	return nil
}
