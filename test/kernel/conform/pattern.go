//go:build unix

package conform

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
)

// SectorSize in bytes.
const SectorSize = 512

const maxSeed = 9999

// Fill fills buf, whole sectors, with the pattern that knows its seed and its sector: word i of sector s is
// seed<<48 | s<<6 | i, little-endian.
func Fill(buf []byte, seed, sector int64) {
	for off := 0; off < len(buf); off += 8 {
		at := sector + int64(off/SectorSize)
		word := uint64(seed)<<48 | uint64(at)<<6 | uint64(off%SectorSize/8)
		binary.LittleEndian.PutUint64(buf[off:], word)
	}
}

// sectorContent says what one sector holds: kind "zero", "data" with seed and sector, or "other" with a hash.
type sectorContent struct {
	kind         string
	seed, sector int64
	hash         string
}

// follows is true if c continues a run whose content n sectors before it was first.
func (c sectorContent) follows(first sectorContent, n int64) bool {
	switch c.kind {
	case "zero":
		return first.kind == "zero"
	case "data":
		return first.kind == "data" && c.seed == first.seed && c.sector == first.sector+n
	}
	return false
}

func (c sectorContent) String() string {
	switch c.kind {
	case "data":
		return fmt.Sprintf("data %d@%d", c.seed, c.sector)
	case "other":
		return "other " + c.hash
	}
	return c.kind
}

// identify finds out what a sector holds.
func identify(sector []byte) sectorContent {
	first := binary.LittleEndian.Uint64(sector)
	seed, at := int64(first>>48), int64(first<<16>>22)
	var want [SectorSize]byte
	if bytes.Equal(sector, want[:]) {
		return sectorContent{kind: "zero"}
	}
	Fill(want[:], seed, at)
	if seed >= 1 && seed <= maxSeed && bytes.Equal(sector, want[:]) {
		return sectorContent{kind: "data", seed: seed, sector: at}
	}
	return sectorContent{kind: "other", hash: fmt.Sprintf("%x", sha256.Sum256(sector))[:16]}
}

// Describe tells the content of buf, which was read from the given sector on, one line per run.
func Describe(buf []byte, sector int64) []string {
	var lines []string
	var first sectorContent
	start, n := sector, int64(0)
	emit := func() {
		if n > 0 {
			lines = append(lines, fmt.Sprintf("%d+%d %v", start, n, first))
		}
	}
	for off := 0; off < len(buf); off += SectorSize {
		c := identify(buf[off : off+SectorSize])
		if n > 0 && c.follows(first, n) {
			n++
			continue
		}
		emit()
		first, start, n = c, sector+int64(off/SectorSize), 1
	}
	emit()
	return lines
}
