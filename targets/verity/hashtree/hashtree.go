// Package hashtree is the tree of hashes over the blocks of a verity disk: where its
// blocks lie, and how blocks are hashed (the layout of drivers/md/dm-verity-target.c).
//
// Level 0 has the hashes of data blocks, level 1 those of the blocks of level 0, and so
// on. The highest level is one block, whose hash is the root hash. A disk of one data
// block has no level: the root hash is that block's. Levels lie one behind the other,
// the highest one first.
package hashtree

import (
	"math"
	"math/bits"
	"slices"
	"syscall"

	"udm/dm"
)

// MaxLevels is how many levels a tree may have.
const MaxLevels = 63

// Shape says what a tree is like.
type Shape struct {
	Version    int    // 0: hashes packed, salt behind the block; 1: hashes at powers of two, salt before it
	DataBlock  int    // bytes
	HashBlock  int    // bytes
	DataBlocks uint64 // how many
	Start      uint64 // in hash blocks: where the highest level lies
	Algorithm  string // of [Algorithms]
	Salt       []byte
}

// Tree is a tree on a device, of which it has the shape only.
type Tree struct {
	Shape
	DigestSize int
	algorithm  algorithm
	bits       int      // log2 of the hashes of a block
	starts     []uint64 // of the levels, in hash blocks
	end        uint64
}

// New computes where the blocks of a tree lie. Errors are the kernel's for a table.
func New(s Shape) (*Tree, error) {
	t := &Tree{Shape: s}
	var ok bool
	if t.algorithm, ok = find(s.Algorithm); !ok {
		return nil, dm.Because(dm.Errorf(syscall.ENOENT, "udm has no hash %q; it has %v", s.Algorithm, Algorithms()), "Cannot initialize hash function")
	}
	t.DigestSize = t.algorithm.new().Size()
	if s.HashBlock < 2*t.DigestSize {
		return nil, dm.Errorf(syscall.EINVAL, "Digest size too big")
	}
	t.bits = bits.Len(uint(s.HashBlock/t.DigestSize)) - 1
	return t, t.place()
}

// place finds the levels.
func (t *Tree) place() error {
	levels := 0
	for t.DataBlocks > 0 && levels*t.bits < 64 && (t.DataBlocks-1)>>(levels*t.bits) > 0 {
		levels++
	}
	t.starts = make([]uint64, levels)
	t.end = t.Start
	for i := range slices.Backward(t.starts) {
		n := t.LevelBlocks(i)
		if t.end > math.MaxUint64-n {
			return dm.Errorf(syscall.E2BIG, "Hash device offset overflow")
		}
		t.starts[i] = t.end
		t.end += n
	}
	return nil
}

// Levels is how many levels there are.
func (t *Tree) Levels() int { return len(t.starts) }

// LevelBlocks is how many blocks a level has.
func (t *Tree) LevelBlocks(level int) uint64 {
	shift := (level + 1) * t.bits
	if shift >= 64 {
		return 1
	}
	return (t.DataBlocks-1)>>shift + 1
}

// Position is where block index of a level lies, in hash blocks.
func (t *Tree) Position(level int, index uint64) uint64 { return t.starts[level] + index }

// End is the hash block behind the tree.
func (t *Tree) End() uint64 { return t.end }

// PerBlock is the number of hashes in a block.
func (t *Tree) PerBlock() uint64 { return 1 << t.bits }

// Parent is the block of the next level that has the hash of something with an index,
// and which of its hashes that is.
func (t *Tree) Parent(index uint64) (block uint64, slot int) {
	return index >> t.bits, int(index & (1<<t.bits - 1))
}

// Digest is a hash in a hash block.
func (t *Tree) Digest(block []byte, slot int) []byte {
	at := slot * t.stride()
	return block[at : at+t.DigestSize : at+t.DigestSize]
}

// stride is how far apart two hashes of a block are.
func (t *Tree) stride() int {
	if t.Version == 0 {
		return t.DigestSize
	}
	return t.HashBlock >> t.bits
}

// ZeroDigest is the hash of a data block of zeroes.
func (t *Tree) ZeroDigest() []byte {
	return slices.Clone(t.NewHasher().Sum(make([]byte, t.DataBlock)))
}
