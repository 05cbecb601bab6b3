package verity

import (
	"bytes"

	"udm/blk"
	"udm/dm"
	"udm/targets/verity/hashtree"
)

// maxDepth is how deep corrections nest.
const maxDepth = 4

// worker checks blocks, one after the other.
type worker struct {
	*verity
	hashers [maxDepth + 1]*hashtree.Hasher
	rows    [maxDepth]*row // for corrections; nil: not used yet
	block   []byte         // a data block of the worker's own
	// quiet: nothing is corrected and no corruption is told.
	quiet bool
}

func newWorker(v *verity) *worker {
	return &worker{verity: v, hashers: [maxDepth + 1]*hashtree.Hasher{v.tree.NewHasher()}}
}

func (w *worker) hasher(depth int) *hashtree.Hasher {
	if w.hashers[depth] == nil {
		w.hashers[depth] = w.tree.NewHasher()
	}
	return w.hashers[depth]
}

// work checks what a clone has read, or has failed to read, block by block.
func (w *worker) work(c *dm.Clone) {
	failed := c.PerIO.(*passage).failed
	status := blk.OK
	block := c.Offset() / w.blockSize
	for left := c.Sectors; left > 0 && status == blk.OK; left -= w.blockSize {
		c.Sectors = w.blockSize
		status = w.check(&c.Bio, block, failed)
		c.Advance(w.blockSize)
		block++
	}
	c.Complete(status)
}

// check sees that the data of a bio are block.
func (w *worker) check(b *blk.Bio, block uint64, failed bool) blk.Status {
	if w.once != nil && !failed && w.once.has(block) {
		return blk.OK
	}
	want, st := w.digest(block, 0)
	switch {
	case st != blk.OK:
		return st
	case w.line.IgnoreZeroBlocks && w.isZero(want):
		b.Zero()
		return blk.OK
	case !failed && bytes.Equal(w.hashers[0].SumBio(b), want):
	default:
		return w.mend(b, block, want)
	}
	if w.once != nil {
		w.once.set(block)
	}
	return blk.OK
}

// mend reads a block once more, tries to correct it, and tells that it is corrupted.
func (w *worker) mend(b *blk.Bio, block uint64, want []byte) blk.Status {
	if w.block == nil {
		w.block = make([]byte, w.line.DataBlock)
	}
	err := w.readData(w.block, block)
	if err == nil && bytes.Equal(w.hashers[0].Sum(w.block), want) || w.correct(w.block, block, want, 0) {
		b.CopyIn(w.block)
		return blk.OK
	}
	if err != nil {
		return blk.IOErr
	}
	if w.corrupted("data", block) {
		return blk.IOErr
	}
	return blk.OK
}

func (w *worker) readData(p []byte, block uint64) error {
	return blk.ReadSectors(w.target.Env(), w.data, p, block*w.blockSize)
}

// digest is what a data block's hash has to be.
func (w *worker) digest(block uint64, depth int) ([]byte, blk.Status) {
	return w.digestAbove(0, block, depth)
}

// digestAbove is what the hash of a data block has to be, for level 0, or of a hash
// block of the level below.
func (w *worker) digestAbove(level int, index uint64, depth int) ([]byte, blk.Status) {
	if level == w.tree.Levels() {
		return w.root, blk.OK
	}
	parent, slot := w.tree.Parent(index)
	data, st := w.hashBlock(level, parent, depth)
	if st != blk.OK {
		return nil, st
	}
	return w.tree.Digest(data, slot), blk.OK
}

// hashBlock is a block of the tree, checked.
func (w *worker) hashBlock(level int, index uint64, depth int) ([]byte, blk.Status) {
	position := w.tree.Position(level, index)
	if data := w.cache.look(position); data != nil {
		return data, blk.OK
	}
	if depth > 0 || w.quiet { // see "Correction" in the package comment
		data, _, st := w.loadHash(level, index, depth)
		return data, st
	}
	if data := w.cache.begin(position); data != nil {
		return data, blk.OK
	}
	data, right, st := w.loadHash(level, index, depth)
	if right {
		w.cache.end(position, data)
	} else {
		w.cache.end(position, nil)
	}
	return data, st
}

// loadHash reads a block of the tree and checks it. With the status OK it may be wrong
// all the same, in a mode that ignores that.
func (w *worker) loadHash(level int, index uint64, depth int) (data []byte, right bool, st blk.Status) {
	want, st := w.digestAbove(level+1, index, depth)
	if st != blk.OK {
		return nil, false, st
	}
	position := w.tree.Position(level, index)
	data = make([]byte, w.line.HashBlock)
	err := w.readHash(data, position)
	switch {
	case err == nil && bytes.Equal(w.hasher(depth).Sum(data), want):
		return data, true, blk.OK
	case w.quiet:
		return nil, false, blk.IOErr
	case w.correctHash(data, position, want, depth):
		return data, true, blk.OK
	case err != nil:
		return nil, false, blk.IOErr
	case depth > 0 || w.corrupted("metadata", position):
		return nil, false, blk.IOErr
	}
	return data, false, blk.OK
}

func (w *worker) readHash(p []byte, position uint64) error {
	return blk.ReadSectors(w.target.Env(), w.hash, p, position*uint64(w.line.HashBlock/blk.SectorSize))
}
