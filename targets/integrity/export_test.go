package integrity

import (
	"bytes"
	"hash"

	"udm/blk"
	"udm/env"
)

// NewHash returns the constructor of an internal hash.
func NewHash(name string, key []byte) (func() hash.Hash, error) {
	return newHash("internal hash", name, key)
}

// Unexplained returns the blocks in the first sectors of a disk that do not match their tags,
// though neither the superblock nor the bitmap tells of it.
func Unexplained(e env.Env, dev, meta blk.Device, line *Line, sectors uint64) (blocks []uint64, err error) {
	s, err := ReadSuperblock(e, meta, line.Start)
	if err != nil {
		return nil, err
	}
	g := &integrity{env: e, line: line, sb: s, start: line.Start, layout: newLayout(s, meta != dev, 3)}
	g.layout.provide(g.start, meta.Limits().Size, dev.Limits().Size)
	hash, err := line.newHash()
	if err != nil {
		return nil, err
	}
	t, b := newTagger(hash, s), newBitmap(g)
	if err := blk.ReadSectors(e, meta, b.disk, g.start+sbSectors); err != nil {
		return nil, err
	}
	known := s.Flags&flagBitmap != 0 && s.LogBitmapBit == b.bit()
	for at := uint64(0); at < sectors; at += g.layout.blockSectors {
		switch {
		case s.Flags&flagBitmap != 0 && (!known || b.disk.has(at>>b.logBit)), s.Flags&flagBitmap == 0 && at >= g.unverifiedFrom():
			continue
		}
		block, tags := make([]byte, line.BlockSize), make([]byte, 2*blk.SectorSize)
		if err := blk.ReadSectors(e, dev, block, g.dataSector(at)); err != nil {
			return nil, err
		}
		pos := g.layout.tag(at)
		first := g.start + g.layout.initial + pos/blk.SectorSize
		if err := blk.ReadSectors(e, meta, tags[:min(2, meta.Limits().Size-first)*blk.SectorSize], first); err != nil {
			return nil, err
		}
		if tag := tags[pos%blk.SectorSize:][:s.TagSize]; !bytes.Equal(tag, t.tag(at, block)) && !isDiscarded(tag) {
			blocks = append(blocks, at)
		}
	}
	return blocks, nil
}
