package pdata

// TM is the transaction manager: it provides blocks that may be changed.
// (dm-transaction-manager.c.)
type TM struct {
	bm *BlockManager
	sm *MetadataMap

	shadowed []uint64 // bit set: blocks that are new in this transaction
	shadows  []uint64 // the same blocks as a list
	scratch  []span   // reused by spans
}

// BM is the block manager below.
func (tm *TM) BM() *BlockManager { return tm.bm }

// Map is the space map of the metadata device.
func (tm *TM) Map() *MetadataMap { return tm.sm }

func (tm *TM) isShadow(nr uint64) bool {
	i := nr / 64
	return i < uint64(len(tm.shadowed)) && tm.shadowed[i]>>(nr%64)&1 != 0
}

func (tm *TM) addShadow(nr uint64) {
	for uint64(len(tm.shadowed)) <= nr/64 {
		tm.shadowed = append(tm.shadowed, make([]uint64, 1+nr/64-uint64(len(tm.shadowed)))...)
	}
	if !tm.isShadow(nr) {
		tm.shadowed[nr/64] |= 1 << (nr % 64)
		tm.shadows = append(tm.shadows, nr)
	}
}

func (tm *TM) wipeShadows() {
	for _, nr := range tm.shadows {
		tm.shadowed[nr/64] = 0
	}
	tm.shadows = tm.shadows[:0]
}

// New allocates a zeroed block.
func (tm *TM) New(k *Kind) (Shadow, error) { return tm.create(k, true) }

func (tm *TM) create(k *Kind, hidden bool) (Shadow, error) {
	nr, err := tm.sm.New()
	if err != nil {
		return Shadow{}, err
	}
	p, err := tm.bm.create(nr, k, hidden)
	if err != nil {
		return Shadow{}, err
	}
	tm.addShadow(nr)
	return Shadow{Block{nr, p.data}}, nil
}

// Shadow consumes one of a block's references and returns a block with the same
// content that may be changed. This is the block itself if it was made in this
// transaction and has no other reference, else a copy. If shared is true the
// original stays in use, and the caller must add a reference to everything that
// it refers to.
func (tm *TM) Shadow(nr uint64, k *Kind) (s Shadow, shared bool, err error) {
	return tm.shadow(nr, k, true)
}

func (tm *TM) shadow(nr uint64, k *Kind, hidden bool) (s Shadow, shared bool, err error) {
	shared, err = tm.sm.shared(nr)
	if err != nil {
		return s, shared, err
	}
	orig, err := tm.bm.get(nr, k, hidden)
	if err != nil {
		return s, shared, err
	}
	if tm.isShadow(nr) && !shared {
		p, err := tm.bm.change(orig)
		if err != nil {
			return s, false, err
		}
		return Shadow{Block{nr, p.data}}, false, nil
	}
	s, err = tm.create(k, hidden)
	if err != nil {
		return s, shared, err
	}
	*s.data = *orig.data
	return s, shared, tm.Dec(nr)
}

// Inc adds a reference to a block.
func (tm *TM) Inc(nr uint64) error { return tm.sm.Inc(nr, nr+1) }

// Dec drops a reference to a block.
func (tm *TM) Dec(nr uint64) error { return tm.sm.Dec(nr, nr+1) }

// IncAll adds a reference to every block named by n little-endian u64s.
func (tm *TM) IncAll(values []byte, n int) error {
	return Runs(values, n, func(v uint64) uint64 { return v }, tm.sm.Inc)
}

// Runs calls fn for every run of consecutive blocks among n u64 values; block
// extracts the block number from a value.
func Runs(values []byte, n int, block func(uint64) uint64, fn func(begin, end uint64) error) error {
	for i := 0; i < n; {
		begin := block(le.Uint64(values[8*i:]))
		end := begin + 1
		for i++; i < n && block(le.Uint64(values[8*i:])) == end; i++ {
			end++
		}
		if err := fn(begin, end); err != nil {
			return err
		}
	}
	return nil
}

// Ref is a block's reference count.
func (tm *TM) Ref(nr uint64) (uint32, error) { return tm.sm.Count(nr) }

// seal ends the running transaction: it completes the metadata space map and
// returns the changed blocks, which nobody changes any more. The caller then puts
// the map's root into its superblock, writes the blocks, and calls durable when
// both are on disk.
func (tm *TM) seal() ([]*page, error) {
	if err := tm.sm.end(); err != nil {
		return nil, err
	}
	tm.wipeShadows()
	return tm.bm.takeDirty(), nil
}

// durable allows blocks to be used again that the sealed transaction freed.
func (tm *TM) durable() { tm.sm.durable() }
