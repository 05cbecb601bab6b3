package pdata

import (
	"fmt"

	"udm/blk"
	"udm/env"
)

// Bulk writes new metadata to a device for a restore. It writes each block once,
// in order and with one reference, and the superblock last.
type Bulk struct {
	e     env.Env
	dev   blk.Device
	w     *Writer
	next  uint64 // the block that Put writes
	limit uint64
	run   [][]byte // blocks before next that are not written yet
}

// NewBulk starts after the superblock at block super. It first overwrites the
// superblock durably with an invalid one, so that an unfinished device looks
// damaged and not like an empty pool.
func NewBulk(e env.Env, dev blk.Device, super uint64) (*Bulk, error) {
	limit := min(dev.Limits().Size/BlockSectors, MaxMetadataBlocks)
	b := &Bulk{e: e, dev: dev, w: NewWriter(e, dev), next: super + 1, limit: limit}
	if super >= limit {
		return nil, ErrFull
	}
	spoil := make([]byte, BlockSize)
	copy(spoil[16:], "unfinished")
	if err := blk.WriteSectors(e, dev, spoil, super*BlockSectors, 0); err != nil {
		return nil, err
	}
	return b, blk.FlushDevice(e, dev)
}

// Blocks is the number of metadata blocks of the device, at most
// MaxMetadataBlocks.
func (b *Bulk) Blocks() uint64 { return b.limit }

// Put writes p to the next block. b owns p from then on.
func (b *Bulk) Put(k *Kind, p []byte) (nr uint64, err error) {
	if b.next >= b.limit {
		return 0, ErrFull
	}
	nr = b.next
	k.Seal(p, nr)
	b.next++
	b.run = append(b.run, p)
	if len(b.run) == b.w.Run() {
		b.flushRun()
	}
	return nr, nil
}

func (b *Bulk) flushRun() {
	if len(b.run) > 0 {
		b.w.Write(b.next-uint64(len(b.run)), b.run)
		b.run = nil
	}
}

// Finish writes the superblock once everything else is durable.
func (b *Bulk) Finish(nr uint64, k *Kind, super []byte) error {
	b.flushRun()
	if err := b.w.Wait(); err != nil {
		return err
	}
	return (&BlockManager{env: b.e, dev: b.dev}).WriteSuper(nr, k, super)
}

// Abandon waits for the writes in flight.
func (b *Bulk) Abandon() { _ = b.w.Wait() }

// Builder builds a tree bottom up from entries in order. All nodes are full
// except the last two of each level, which share the remaining entries.
type Builder struct {
	b      *Bulk
	size   int
	levels []*level
	last   uint64
	any    bool
}

// level is the part of a level that is not written yet.
type level struct {
	size   int
	keys   []uint64
	values []byte
	nodes  int // written
}

// NewBuilder returns a builder of a tree whose values have size bytes.
func (b *Bulk) NewBuilder(size int) *Builder { return &Builder{b: b, size: size} }

// Add appends an entry. Its key must be greater than all earlier ones.
func (t *Builder) Add(key uint64, value []byte) error {
	if t.any && key <= t.last {
		return fmt.Errorf("key %d comes after key %d", key, t.last)
	}
	t.any, t.last = true, key
	return t.add(0, key, value)
}

func (t *Builder) add(i int, key uint64, value []byte) error {
	if i == len(t.levels) {
		size := 8
		if i == 0 {
			size = t.size
		}
		t.levels = append(t.levels, &level{size: size})
	}
	l := t.levels[i]
	l.keys = append(l.keys, key)
	l.values = append(l.values, value...)
	if most := MaxEntries(l.size); len(l.keys) == 2*most {
		return t.emit(i, most)
	}
	return nil
}

// emit writes a node with the first n entries of a level and adds it to the next
// level up.
func (t *Builder) emit(i, n int) error {
	key := t.levels[i].keys[0]
	nr, err := t.node(i, n)
	if err != nil {
		return err
	}
	var p [8]byte
	le.PutUint64(p[:], nr)
	return t.add(i+1, key, p[:])
}

func (t *Builder) node(i, n int) (uint64, error) {
	l := t.levels[i]
	w := wnode{node{Block{0, new([BlockSize]byte)}}}
	flags := uint32(flagLeaf)
	if i > 0 {
		flags = flagInternal
	}
	w.init(flags, l.size)
	w.setCount(n)
	for j, key := range l.keys[:n] {
		w.setKey(j, key)
	}
	copy(w.values(0, n), l.values)
	l.keys = l.keys[:copy(l.keys, l.keys[n:])]
	l.values = l.values[:copy(l.values, l.values[n*l.size:])]
	l.nodes++
	return t.b.Put(kindNode, w.data[:])
}

// Finish writes the remaining entries and returns the root.
func (t *Builder) Finish() (root uint64, err error) {
	if !t.any {
		t.levels = []*level{{size: t.size}}
	}
	for i := 0; ; i++ {
		l := t.levels[i]
		n := len(l.keys)
		if l.nodes == 0 && n <= MaxEntries(l.size) {
			return t.node(i, n)
		}
		parts := []int{n}
		if n > MaxEntries(l.size) {
			parts = []int{n / 2, n - n/2}
		}
		for _, c := range parts {
			if err := t.emit(i, c); err != nil {
				return 0, err
			}
		}
	}
}

// DataMap writes the space map of a data device of blocks blocks.
func (b *Bulk) DataMap(blocks uint64, refs *RefCounts) (r MapRoot, err error) {
	r.Blocks = blocks
	if blocks/perBitmap > b.limit {
		return r, ErrFull
	}
	index, many := b.NewBuilder(indexCodec.Size), b.NewBuilder(4)
	for i := uint64(0); i*perBitmap < blocks; i++ {
		e, err := b.bitmap(i, min(blocks, (i+1)*perBitmap), refs.each, many)
		if err != nil {
			return r, err
		}
		r.Allocated += uint64(perBitmap - e.free)
		var p [16]byte
		indexCodec.Put(p[:], e)
		if err := index.Add(i, p[:]); err != nil {
			return r, err
		}
	}
	if r.BitmapRoot, err = index.Finish(); err != nil {
		return r, err
	}
	r.RefRoot, err = many.Finish()
	return r, err
}

// bitmap writes bitmap i, whose blocks end at end. each calls its argument for
// the blocks that have references. many receives the counts that do not fit into
// the bitmap.
func (b *Bulk) bitmap(i, end uint64, each func(begin, end uint64, fn func(nr uint64, n uint32)), many *Builder) (e indexEntry, err error) {
	p := make([]byte, BlockSize)
	e.free = perBitmap
	each(i*perBitmap, end, func(nr uint64, n uint32) {
		bit := uint32(nr - i*perBitmap)
		bitmap(p).set(bit, min(n, manyRefs))
		if e.free--; e.none == bit {
			e.none++
		}
		if n >= manyRefs && err == nil {
			var v [4]byte
			le.PutUint32(v[:], n)
			err = many.Add(nr, v[:])
		}
	})
	if err != nil {
		return e, err
	}
	e.block, err = b.Put(kindBitmap, p)
	return e, err
}

// MetadataMap writes the space map of the metadata device itself. Nothing but
// Finish may follow.
func (b *Bulk) MetadataMap() (r MapRoot, err error) {
	n := (b.limit + perBitmap - 1) / perBitmap
	r.Blocks, r.Allocated = b.limit, b.next+n+2 // bitmaps, reference counts, index
	if r.Allocated > b.limit {
		return r, ErrFull
	}
	used := func(begin, end uint64, fn func(nr uint64, n uint32)) {
		for nr := begin; nr < min(end, r.Allocated); nr++ {
			fn(nr, 1)
		}
	}
	index := make([]byte, BlockSize)
	for i := range n {
		e, err := b.bitmap(i, min(b.limit, (i+1)*perBitmap), used, nil)
		if err != nil {
			return r, err
		}
		indexCodec.Put(index[indexHead+16*i:], e)
	}
	if r.RefRoot, err = b.NewBuilder(4).Finish(); err != nil {
		return r, err
	}
	r.BitmapRoot, err = b.Put(kindIndex, index)
	return r, err
}
