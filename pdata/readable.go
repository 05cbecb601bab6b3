package pdata

// NodeIn returns the node in p, the content of block nr, if it is a sound one.
func NodeIn(p *[BlockSize]byte, nr uint64) (Leaf, bool) {
	return Leaf{node{Block{nr, p}}}, kindNode.Verify(p[:], nr) == ""
}

// IsIndex reports whether p, the content of block nr, is a sound index of a metadata
// space map.
func IsIndex(p *[BlockSize]byte, nr uint64) bool { return kindIndex.Verify(p[:], nr) == "" }

// Used tells which metadata blocks are in use, as far as a metadata space map can be
// read.
type Used struct {
	bm      *BlockManager
	bitmaps [perIndex]uint64
}

// ReadUsed reads the index of a metadata space map.
func ReadUsed(bm *BlockManager, index uint64) (*Used, error) {
	b, err := bm.Read(index, kindIndex)
	if err != nil {
		return nil, err
	}
	u := &Used{bm: bm}
	for i := range u.bitmaps {
		u.bitmaps[i] = indexCodec.Get(b.data[indexHead+16*i:]).block
	}
	return u, nil
}

// Has reports whether block nr is in use; known is false if the bitmap that says so
// cannot be read.
func (u *Used) Has(nr uint64) (used, known bool) {
	n, known := u.Refs(nr)
	return n > 0, known
}

// ManyRefs stands for as many references, or more.
const ManyRefs = 3

// Refs is how often block nr is referred to, up to ManyRefs. known is as of Has.
func (u *Used) Refs(nr uint64) (n int, known bool) {
	i := nr / perBitmap
	if i >= perIndex || u.bitmaps[i] == 0 {
		return 0, false
	}
	b, err := u.bm.Read(u.bitmaps[i], kindBitmap)
	if err != nil {
		return 0, false
	}
	return int(bitmap(b.data[:]).get(uint32(nr % perBitmap))), true
}

// Bitmaps calls fn for the blocks of bitmaps that the first blocks of the device need.
func (u *Used) Bitmaps(blocks uint64, fn func(nr uint64)) {
	for i := uint64(0); i*perBitmap < blocks && i < perIndex; i++ {
		fn(u.bitmaps[i])
	}
}
