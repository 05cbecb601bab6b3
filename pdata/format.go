package pdata

// Format makes a transaction manager for an empty device whose superblock is
// block super. An index, a reference count tree and the bitmaps follow it on
// disk. Format writes nothing; the first commit does.
func Format(bm *BlockManager, super uint64) (*TM, error) {
	tm := &TM{bm: bm}
	m := &MetadataMap{states: states{cur: newLL(tm, true)}, begin: super + 1, boot: true}
	tm.sm = m
	blocks := min(bm.Blocks(), MaxMetadataBlocks)
	m.cur.root.Blocks = blocks // New needs it
	index, err := tm.create(kindIndex, true)
	if err != nil {
		return nil, err
	}
	m.cur.root.BitmapRoot = index.nr
	if m.cur.root.RefRoot, err = m.cur.refs.Empty(); err != nil {
		return nil, err
	}
	m.cur.root.Blocks = 0
	if err := m.cur.extend(blocks); err != nil {
		return nil, err
	}
	m.boot = false
	m.queue = append(m.queue, blockOp{super, m.begin, 1})
	if err := m.drain(); err != nil {
		return nil, err
	}
	if err := m.end(); err != nil {
		return nil, err
	}
	m.durable() // there is no earlier state
	return tm, nil
}

// OpenTM opens the metadata space map at root.
func OpenTM(bm *BlockManager, root MapRoot) (*TM, error) {
	tm := &TM{bm: bm}
	return tm, tm.Reopen(root)
}

// Reopen resets tm to what OpenTM would return. It is the last step of an abort.
// Trees made with tm stay valid. After an error tm must not be used.
func (tm *TM) Reopen(root MapRoot) error {
	tm.wipeShadows()
	m := &MetadataMap{states: states{cur: newLL(tm, true)}}
	if tm.sm != nil {
		m.threshold, m.below = tm.sm.threshold, tm.sm.below
	}
	tm.sm = m
	if n := (root.Blocks + perBitmap - 1) / perBitmap; n > perIndex {
		return corrupt(root.BitmapRoot, "metadata space map of %d blocks is too large", root.Blocks)
	}
	m.cur.root = root
	p, err := tm.bm.get(root.BitmapRoot, kindIndex, true)
	if err != nil {
		return In("metadata space map", err)
	}
	for i := range m.cur.index {
		m.cur.index[i] = indexCodec.Get(p.data[indexHead+16*i:])
	}
	m.old = m.cur.snapshot()
	return nil
}
