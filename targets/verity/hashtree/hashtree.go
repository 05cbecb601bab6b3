// Package hashtree defines the layout of the hash tree of a verity disk and the hashing
// of blocks (drivers/md/dm-verity-target.c).
//
// Level 0 holds the hashes of the data blocks, level 1 those of the blocks of level 0,
// and so on. The highest level is a single block, whose hash is the root hash. A disk of
// one data block has no levels: its hash is the root hash. The levels are stored one after
// the other, the highest first.
package hashtree

import (
	"math"
	"math/bits"
	"slices"
	"syscall"

	"udm/dm"
)

// MaxLevels is the kernel's limit for the levels of a tree.
const MaxLevels = 63

// Shape is the geometry of a tree.
type Shape struct {
	// Version 0 packs the hashes of a block and hashes the salt after a block.
	// Version 1 puts hashes at multiples of a power of two and hashes the salt first.
	Version    int
	DataBlock  int    // size of a data block in bytes
	HashBlock  int    // size of a hash block in bytes
	DataBlocks uint64 // number of data blocks
	Start      uint64 // of the highest level, in hash blocks
	Algorithm  string // one of [Algorithms]
	Salt       []byte
}

// Tree is the layout of a tree. It does not access the device. It is immutable.
type Tree struct {
	Shape
	DigestSize int // bytes
	algorithm  algorithm
	bits       int      // log2 of the number of hashes in a block
	starts     []uint64 // by level, in hash blocks
	end        uint64   // in hash blocks
}

// New computes the layout of a tree. Its errors are those of the kernel for a table line.
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

// place computes the number of levels and their positions.
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

// Levels returns the number of levels.
func (t *Tree) Levels() int { return len(t.starts) }

// LevelBlocks returns the number of blocks of a level.
func (t *Tree) LevelBlocks(level int) uint64 {
	shift := (level + 1) * t.bits
	if shift >= 64 {
		return 1
	}
	return (t.DataBlocks-1)>>shift + 1
}

// Position returns the position of a level's block on the hash device, in hash blocks.
func (t *Tree) Position(level int, index uint64) uint64 { return t.starts[level] + index }

// End returns the position after the last block of the tree, in hash blocks.
func (t *Tree) End() uint64 { return t.end }

// PerBlock returns the number of hashes in a block.
func (t *Tree) PerBlock() uint64 { return 1 << t.bits }

// Parent returns where the hash of block index of a level is in the next level: the index
// of the block and the number of the hash in it.
func (t *Tree) Parent(index uint64) (block uint64, slot int) {
	return index >> t.bits, int(index & (1<<t.bits - 1))
}

// Digest returns hash number slot of a hash block. The slice aliases block.
func (t *Tree) Digest(block []byte, slot int) []byte {
	at := slot * t.stride()
	return block[at : at+t.DigestSize : at+t.DigestSize]
}

// stride returns the distance between two hashes in a block, in bytes.
func (t *Tree) stride() int {
	if t.Version == 0 {
		return t.DigestSize
	}
	return t.HashBlock >> t.bits
}

// ZeroDigest returns the hash of a data block of zeroes.
func (t *Tree) ZeroDigest() []byte {
	return slices.Clone(t.NewHasher().Sum(make([]byte, t.DataBlock)))
}
