package blktest

import (
	"encoding/binary"
	"fmt"

	"udm/blk"
)

// Pattern data: each 8-byte little-endian word holds its own offset on the disk
// and the seed of the write that stored it.
//
//	bits  0–39  byte offset on the disk / 8, modulo 2^40
//	bits 40–63  seed, modulo 2^24
//
// Seed 0 stands for a sector of zeroes, so that every content has a seed.
const (
	offsetBits = 40
	// MaxSeed is the largest distinguishable seed.
	MaxSeed = 1<<24 - 1
)

func word(off, seed uint64) uint64 {
	if seed == 0 {
		return 0
	}
	return off/8&(1<<offsetBits-1) | seed<<offsetBits
}

// Fill writes the pattern of seed for the disk from sector on to p, whose
// length is a multiple of 8.
func Fill(p []byte, sector, seed uint64) {
	off := sector * blk.SectorSize
	for i := 0; i < len(p); i += 8 {
		binary.LittleEndian.PutUint64(p[i:], word(off+uint64(i), seed))
	}
}

// Pattern returns a new buffer of sectors filled by Fill.
func Pattern(sector, sectors, seed uint64) []byte {
	p := make([]byte, sectors*blk.SectorSize)
	Fill(p, sector, seed)
	return p
}

// Check compares p with the pattern of seed for the disk from sector on. The
// error names the first wrong sector and describes its content.
func Check(p []byte, sector, seed uint64) error {
	off := sector * blk.SectorSize
	for i := 0; i < len(p); i += 8 {
		got := binary.LittleEndian.Uint64(p[i:])
		if at := off + uint64(i); got != word(at, seed) {
			return fmt.Errorf("sector %d byte %d: found %s, want %s",
				at/blk.SectorSize, at%blk.SectorSize, describe(got), describe(word(at, seed)))
		}
	}
	return nil
}

// describe names the pattern that a word belongs to.
func describe(w uint64) string {
	if w == 0 {
		return "zeroes"
	}
	off := w & (1<<offsetBits - 1) * 8
	return fmt.Sprintf("%#016x (seed %d of sector %d byte %d)", w, w>>offsetBits, off/blk.SectorSize, off%blk.SectorSize)
}

// SeedOf returns the seed that sector p was filled with; ok is false if p is not
// a complete pattern of that sector.
func SeedOf(p []byte, sector uint64) (seed uint64, ok bool) {
	for i := 0; i < len(p) && seed == 0; i += 8 {
		seed = binary.LittleEndian.Uint64(p[i:]) >> offsetBits
	}
	return seed, Check(p, sector, seed) == nil
}
