package verity

import (
	"bytes"

	"udm/blk"
	"udm/dm"
	"udm/targets/verity/hashtree"
)

// maxDepth bounds the recursion of corrections.
const maxDepth = 4

// worker verifies blocks one at a time.
type worker struct {
	*verity
	hashers [maxDepth + 1]*hashtree.Hasher
	rows    [maxDepth]*row // by depth of correction, allocated on first use
	block   []byte         // a data block, not shared with the client
	quiet   bool           // neither correct nor report corruption
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

// work verifies the data of a clone block by block, and completes it. If the read of the
// data device failed, it tries to recover each block.
func (w *worker) work(c *dm.Clone) {
	failed := c.PerIO.(*perIO).failed
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

// check verifies the data of a bio, which are the data block with the given number.
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
		return w.repair(b, block, want)
	}
	if w.once != nil {
		w.once.set(block)
	}
	return blk.OK
}

// repair reads a block again, then tries to correct it, and otherwise reports it as
// corrupted.
func (w *worker) repair(b *blk.Bio, block uint64, want []byte) blk.Status {
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

// digest returns the expected hash of a data block.
func (w *worker) digest(block uint64, depth int) ([]byte, blk.Status) {
	return w.digestIn(0, block, depth)
}

// digestIn returns a hash that a level of the tree holds: for level 0 that of a data
// block, for others that of a hash block of the level below.
func (w *worker) digestIn(level int, index uint64, depth int) ([]byte, blk.Status) {
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

// hashBlock returns a verified block of the tree, or one that is known to be corrupted
// if the mode is Ignore.
func (w *worker) hashBlock(level int, index uint64, depth int) ([]byte, blk.Status) {
	position := w.tree.Position(level, index)
	if data := w.cache.get(position); data != nil {
		return data, blk.OK
	}
	if depth > 0 || w.quiet { // see "Correction" in the package comment
		data, _, st := w.loadHash(level, index, depth)
		return data, st
	}
	if data := w.cache.begin(position); data != nil {
		return data, blk.OK
	}
	data, verified, st := w.loadHash(level, index, depth)
	if verified {
		w.cache.end(position, data)
	} else {
		w.cache.end(position, nil)
	}
	return data, st
}

// loadHash reads a block of the tree and verifies it. If the mode is Ignore, it returns
// a corrupted block with the status OK and verified false.
func (w *worker) loadHash(level int, index uint64, depth int) (data []byte, verified bool, st blk.Status) {
	want, st := w.digestIn(level+1, index, depth)
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
