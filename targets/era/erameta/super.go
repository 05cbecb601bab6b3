package erameta

import (
	"encoding/binary"

	"udm/pdata"
)

const (
	SuperBlock   = 0          // block of the superblock
	SuperMagic   = 2126579579 // magic number
	SuperVersion = 1          // version of the format

	// MaxBlocks is the largest number of blocks of a device.
	MaxBlocks = 1<<31 - 1
)

var le = binary.LittleEndian

// KindSuper is the block kind of the superblock.
var KindSuper = pdata.NewSuperKind(146538381, SuperMagic)

var superFormat = &pdata.SuperFormat{Kind: KindSuper, Block: SuperBlock, Metadata: 44, Held: 216}

// ReadSuperAt reads the superblock, or the copy of a metadata snapshot, in block nr.
func ReadSuperAt(bm *pdata.BlockManager, nr uint64) (*Super, error) {
	b, err := bm.Read(nr, KindSuper)
	if err != nil {
		return nil, pdata.In("superblock", err)
	}
	var s Super
	s.Decode(b.Bytes())
	return &s, nil
}

// Super is a superblock. The package comment describes its fields.
type Super struct {
	Version           uint32
	Metadata          pdata.MapRoot
	BlockSize         uint32 // sectors
	MetadataBlockSize uint32 // sectors
	Blocks            uint32 // of the device
	Era               uint32
	Current           Writeset // of Era
	Sets              uint64   // root of the tree of archived writesets
	Eras              uint64   // root of the era array
	Held              uint64   // block of the metadata snapshot; 0: none
}

// Decode reads a superblock from a block.
func (s *Super) Decode(p []byte) {
	s.Version, s.Metadata = le.Uint32(p[40:]), pdata.GetMapRoot(p[44:])
	s.BlockSize, s.MetadataBlockSize = le.Uint32(p[172:]), le.Uint32(p[176:])
	s.Blocks, s.Era = le.Uint32(p[180:]), le.Uint32(p[184:])
	s.Current = WritesetCodec.Get(p[188:])
	s.Sets, s.Eras, s.Held = le.Uint64(p[200:]), le.Uint64(p[208:]), le.Uint64(p[216:])
}

// Encode writes the superblock to a block, except for the checksum and the block
// number.
func (s *Super) Encode(p []byte) {
	le.PutUint32(p[4:], 0)
	clear(p[16:32])
	le.PutUint64(p[32:], SuperMagic)
	le.PutUint32(p[40:], s.Version)
	clear(p[44:172])
	s.Metadata.Put(p[44:])
	le.PutUint32(p[172:], s.BlockSize)
	le.PutUint32(p[176:], s.MetadataBlockSize)
	le.PutUint32(p[180:], s.Blocks)
	le.PutUint32(p[184:], s.Era)
	WritesetCodec.Put(p[188:], s.Current)
	le.PutUint64(p[200:], s.Sets)
	le.PutUint64(p[208:], s.Eras)
	le.PutUint64(p[216:], s.Held)
}

// Writeset is the set of blocks that were written in an era.
type Writeset struct {
	Bits uint32 // size of the set
	Root uint64 // of its bitset; 0: none
}

// WritesetCodec encodes and decodes a writeset in the tree.
var WritesetCodec = pdata.Codec[Writeset]{
	Size: 12,
	Put:  func(p []byte, w Writeset) { le.PutUint32(p, w.Bits); le.PutUint64(p[4:], w.Root) },
	Get:  func(p []byte) Writeset { return Writeset{le.Uint32(p), le.Uint64(p[4:])} },
}
