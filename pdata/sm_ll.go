package pdata

import (
	"slices"
	"syscall"
)

const (
	perBitmap  = (BlockSize - bitmapHead) * 4 // blocks that a bitmap counts
	bitmapHead = 16
	perIndex   = 255 // bitmaps of a metadata space map
	indexHead  = 16
	rootSpace  = 128 // bytes that a superblock reserves for a root, of which 32 are used
	manyRefs   = 3   // a bitmap entry that refers to the ref_count tree
	perWord    = 32
	highBits   = 0x5555555555555555 // bit 2i, the high bit of entry i

	// MaxMetadataBlocks is the largest number of blocks of a metadata device that
	// the kernel uses.
	MaxMetadataBlocks = perIndex * (1<<14 - 64)
)

// indexEntry locates a bitmap and summarizes its content.
type indexEntry struct {
	block uint64
	free  uint32 // number of entries that are 0; in the last bitmap it includes entries beyond the end
	none  uint32 // no free entry precedes this one (none_free_before)
}

var indexCodec = Codec[indexEntry]{
	Size: 16,
	Put: func(p []byte, e indexEntry) {
		le.PutUint64(p, e.block)
		le.PutUint32(p[8:], e.free)
		le.PutUint32(p[12:], e.none)
	},
	Get: func(p []byte) indexEntry {
		return indexEntry{le.Uint64(p), le.Uint32(p[8:]), le.Uint32(p[12:])}
	},
}

// MapRoot is a space map's root as stored in a superblock.
type MapRoot struct{ Blocks, Allocated, BitmapRoot, RefRoot uint64 }

// Put writes the root to p, which has at least 32 bytes.
func (r MapRoot) Put(p []byte) {
	le.PutUint64(p, r.Blocks)
	le.PutUint64(p[8:], r.Allocated)
	le.PutUint64(p[16:], r.BitmapRoot)
	le.PutUint64(p[24:], r.RefRoot)
}

// GetMapRoot reads a root from p, which has at least 32 bytes.
func GetMapRoot(p []byte) MapRoot {
	return MapRoot{le.Uint64(p), le.Uint64(p[8:]), le.Uint64(p[16:]), le.Uint64(p[24:])}
}

// ll is one state of a space map: bitmaps with counts up to 2, and a tree of
// higher counts. A copy (see snapshot) stays valid for its transaction as long as
// the blocks of that transaction are not overwritten. (dm-space-map-common.c.)
type ll struct {
	tm   *TM
	root MapRoot
	refs *Tree[uint32]

	// A metadata map keeps its index in memory, a data map in a tree.
	index   []indexEntry
	changed bool // index differs from the block at BitmapRoot
	tree    *Tree[indexEntry]
}

func newLL(tm *TM, meta bool) ll {
	l := ll{tm: tm, refs: NewTree(tm, U32)}
	l.refs.t.hidden = true
	if meta {
		l.index = make([]indexEntry, perIndex)
	} else {
		l.tree = NewTree(tm, indexCodec)
		l.tree.t.hidden = true
	}
	return l
}

func (l *ll) snapshot() ll {
	c := *l
	c.index = slices.Clone(l.index)
	return c
}

func (l *ll) load(i uint64) (indexEntry, error) {
	if l.index != nil {
		return l.index[i], nil
	}
	e, err := l.tree.Lookup(l.root.BitmapRoot, i)
	if err == syscall.ENODATA {
		return e, corrupt(l.root.BitmapRoot, "no bitmap %d in the index", i)
	}
	return e, In("bitmap index", err)
}

func (l *ll) save(i uint64, e indexEntry) (err error) {
	if l.index != nil {
		l.changed = true
		l.index[i] = e
		return nil
	}
	l.root.BitmapRoot, err = l.tree.Insert(l.root.BitmapRoot, e, i)
	return In("bitmap index", err)
}

// check rejects blocks beyond the map.
func (l *ll) check(begin, end uint64) error {
	if begin > end || end > l.root.Blocks {
		return corrupt(begin, "reference to block %d beyond the space map of %d blocks", end-1, l.root.Blocks)
	}
	return nil
}

// lookup is a block's count according to its bitmap: 3 means 3 or more.
func (l *ll) lookup(nr uint64) (uint32, error) {
	if err := l.check(nr, nr+1); err != nil {
		return 0, err
	}
	e, err := l.load(nr / perBitmap)
	if err != nil {
		return 0, err
	}
	p, err := l.tm.bm.get(e.block, kindBitmap, true)
	if err != nil {
		return 0, err
	}
	return bitmap(p.data[:]).get(uint32(nr % perBitmap)), nil
}

// count is a block's count.
func (l *ll) count(nr uint64) (uint32, error) {
	n, err := l.lookup(nr)
	if err == nil && n == manyRefs {
		return l.many(nr)
	}
	return n, err
}

func (l *ll) many(nr uint64) (uint32, error) {
	n, err := l.refs.Lookup(l.root.RefRoot, nr)
	if err == syscall.ENODATA {
		return 0, corrupt(l.root.RefRoot, "no count of block %d in the reference count tree", nr)
	}
	return n, In("reference counts", err)
}

// find finds a free block in [begin, end).
func (l *ll) find(begin, end uint64) (uint64, error) {
	for end = min(end, l.root.Blocks); begin < end; begin = (begin/perBitmap + 1) * perBitmap {
		i := begin / perBitmap
		e, err := l.load(i)
		if err != nil {
			return 0, err
		}
		if e.free == 0 {
			continue
		}
		p, err := l.tm.bm.get(e.block, kindBitmap, true)
		if err != nil {
			return 0, err
		}
		from := max(uint32(begin%perBitmap), e.none)
		if n, ok := bitmap(p.data[:]).free(from, uint32(min(perBitmap, end-i*perBitmap))); ok {
			return i*perBitmap + uint64(n), nil
		}
	}
	return 0, syscall.ENOSPC
}
