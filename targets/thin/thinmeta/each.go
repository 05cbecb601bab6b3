package thinmeta

// EachMapped calls fn for each mapped block from begin on, in order, until fn returns
// false.
func (t *Thin) EachMapped(begin uint64, fn func(block uint64) bool) error {
	if err := t.m.sb.Usable(); err != nil {
		return err
	}
	root, err := t.m.bottomRoot(t.id)
	if err != nil {
		return err
	}
	return t.in(t.m.bottoms.Scan(root, begin, func(k, _ uint64) bool { return fn(k) }))
}
