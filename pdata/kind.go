package pdata

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"udm/blk"
)

// BlockSize is the size of a metadata block in bytes; BlockSectors in sectors.
const (
	BlockSize    = 4096
	BlockSectors = BlockSize / blk.SectorSize
)

// Kind is a type of block: how it is sealed before a write and checked after a
// read (the kernel's dm_block_validator). Kinds are compared by address.
type Kind struct {
	Name    string
	Xor     uint32              // constant of the checksum
	BlockNr int                 // offset of the u64 that holds the block's own location
	Check   func([]byte) string // describes what is wrong with a block whose checksum is right; "" if nothing
}

var (
	kindNode   = &Kind{Name: "btree node", Xor: 121107, BlockNr: 8, Check: checkNode}
	kindBitmap = &Kind{Name: "bitmap", Xor: 240779, BlockNr: 8}
	kindIndex  = &Kind{Name: "metadata index", Xor: 160478, BlockNr: 8}
	kindArray  = &Kind{Name: "array block", Xor: 595846735, BlockNr: 16, Check: checkArray}
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

var le = binary.LittleEndian

func (k *Kind) sum(p []byte) uint32 {
	return crc32.Checksum(p[4:], castagnoli) ^ 0xffffffff ^ k.Xor
}

// Seal writes block's location and its checksum into p.
func (k *Kind) Seal(p []byte, block uint64) {
	le.PutUint64(p[k.BlockNr:], block)
	le.PutUint32(p, k.sum(p))
}

// Verify describes what is wrong with p as a block of this kind at a location; ""
// if nothing is.
func (k *Kind) Verify(p []byte, block uint64) string {
	if got, want := le.Uint32(p), k.sum(p); got != want {
		return fmt.Sprintf("bad checksum of a %s: %#x, want %#x", k.Name, got, want)
	}
	if nr := le.Uint64(p[k.BlockNr:]); nr != block {
		return fmt.Sprintf("%s says that it is block %d", k.Name, nr)
	}
	if k.Check != nil {
		return k.Check(p)
	}
	return ""
}

func checkArray(p []byte) string {
	most, count, size := le.Uint32(p[4:]), le.Uint32(p[8:]), le.Uint32(p[12:])
	if size == 0 || uint64(most)*uint64(size) > BlockSize-arrayHead || count > most {
		return fmt.Sprintf("array block of %d of %d entries of %d bytes", count, most, size)
	}
	return ""
}

const arrayHead = 24

// Kinds returns the kinds of blocks that this package writes.
func Kinds() []*Kind { return []*Kind{kindNode, kindBitmap, kindIndex, kindArray} }
