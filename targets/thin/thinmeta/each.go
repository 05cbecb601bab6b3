package thinmeta

// EachMapped calls fn for the mapped blocks from begin on, in order, until it
// returns false.
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
