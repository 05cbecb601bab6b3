package veritytools

import (
	"errors"
	"fmt"
	"math"

	"udm/blk"
	"udm/env"
	"udm/targets/verity/hashtree"
)

// Check validates a header and sets Shape.Start. offset is the byte of the hash device
// where the superblock starts, or the tree if there is no superblock.
func (h *Header) Check(offset uint64, superblock bool) error {
	s := &h.Shape
	switch {
	case s.Version != 0 && s.Version != 1:
		return fmt.Errorf("hash type %d is unknown; use 0 or 1", s.Version)
	case !isBlock(uint32(s.DataBlock)) || !isBlock(uint32(s.HashBlock)):
		return fmt.Errorf("blocks of %d and %d bytes are not supported; use powers of two from 512 to %d", s.DataBlock, s.HashBlock, maxBlock)
	case len(s.Salt) > MaxSalt:
		return fmt.Errorf("the salt has %d bytes; at most %d are allowed", len(s.Salt), MaxSalt)
	case s.DataBlocks == 0:
		return errors.New("the disk is smaller than a data block")
	case s.DataBlocks > math.MaxInt64/uint64(s.DataBlock):
		return fmt.Errorf("%d data blocks are too many", s.DataBlocks)
	case superblock && offset%blk.SectorSize != 0:
		return fmt.Errorf("a superblock cannot start at byte %d; use a multiple of %d", offset, blk.SectorSize)
	case !superblock && offset%uint64(s.HashBlock) != 0:
		return fmt.Errorf("a tree cannot start at byte %d; use a multiple of the hash block size, %d", offset, s.HashBlock)
	}
	s.Start = Start(offset, s.HashBlock, superblock)
	_, err := hashtree.New(*s)
	return err
}

// HashBytes returns the size that the hash device must have, in bytes.
func (h *Header) HashBytes() (uint64, error) {
	t, err := hashtree.New(h.Shape)
	if err != nil {
		return 0, err
	}
	if t.End() > math.MaxInt64/uint64(h.Shape.HashBlock) {
		return 0, errors.New("the tree would be larger than a device can be")
	}
	return t.End() * uint64(h.Shape.HashBlock), nil
}

// Create writes the hash tree of the data, makes it durable, and returns the root hash.
// Call WriteSuperblock afterwards, so that a superblock implies a complete tree.
func Create(e env.Env, data, hash blk.Device, h *Header) (root []byte, err error) {
	t, err := hashtree.New(h.Shape)
	if err != nil {
		return nil, err
	}
	if have, want := data.Limits().Size, h.Sectors(); have < want {
		return nil, fmt.Errorf("%v has %d sectors, but %d data blocks take %d", data, have, h.Shape.DataBlocks, want)
	}
	end := t.End() * uint64(h.Shape.HashBlock/blk.SectorSize)
	if have := hash.Limits().Size; have < end {
		return nil, fmt.Errorf("%v has %d sectors, but the tree ends at sector %d", hash, have, end)
	}
	below := blocks{e, data, 0, h.Shape.DataBlocks, h.Shape.DataBlock}
	for level := range t.Levels() {
		if err := createLevel(e, hash, t, level, below); err != nil {
			return nil, err
		}
		below = blocks{e, hash, t.Position(level, 0), t.LevelBlocks(level), h.Shape.HashBlock}
	}
	err = below.each(func(_ uint64, p []byte) error {
		root = append([]byte(nil), t.NewHasher().Sum(p)...)
		return nil
	})
	if err == nil {
		err = blk.FlushDevice(e, hash)
	}
	return root, err
}

// createLevel writes a level of the tree: the hashes of the blocks of the level below.
func createLevel(e env.Env, hash blk.Device, t *hashtree.Tree, level int, below blocks) error {
	out := make([]byte, t.HashBlock)
	hasher := t.NewHasher()
	return below.each(func(i uint64, p []byte) error {
		block, slot := t.Parent(i)
		copy(t.Digest(out, slot), hasher.Sum(p))
		if slot+1 < int(t.PerBlock()) && i+1 < below.count {
			return nil
		}
		err := blk.WriteSectors(e, hash, out, t.Position(level, block)*uint64(t.HashBlock/blk.SectorSize), 0)
		clear(out)
		return err
	})
}

// WriteSuperblock writes the superblock at a byte offset of a device, a multiple of the
// sector size, and makes it durable.
func (h *Header) WriteSuperblock(e env.Env, hash blk.Device, offset uint64) error {
	block := max(blk.SectorSize, uint64(hash.Limits().LogicalBlock))
	first := offset / block * block
	p, err := readBytes(e, hash, first, block)
	if err != nil {
		return err
	}
	copy(p[offset-first:], h.encode())
	if err := blk.WriteSectors(e, hash, p, first/blk.SectorSize, 0); err != nil {
		return err
	}
	return blk.FlushDevice(e, hash)
}

// blocks are consecutive blocks of a device.
type blocks struct {
	env   env.Env
	dev   blk.Device
	first uint64 // in blocks
	count uint64
	size  int // of a block in bytes
}

// readSize is the size of a read in bytes.
const readSize = 1 << 20

// each calls f for each block with its index, counted from first.
func (b blocks) each(f func(i uint64, p []byte) error) error {
	most := max(1, uint64(readSize/b.size))
	buf := make([]byte, min(most, b.count)*uint64(b.size))
	for i := uint64(0); i < b.count; {
		p := buf[:min(most, b.count-i)*uint64(b.size)]
		if err := blk.ReadSectors(b.env, b.dev, p, (b.first+i)*uint64(b.size/blk.SectorSize)); err != nil {
			return err
		}
		for ; len(p) > 0; i, p = i+1, p[b.size:] {
			if err := f(i, p[:b.size]); err != nil {
				return err
			}
		}
	}
	return nil
}
