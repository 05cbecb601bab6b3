package thinmeta

import (
	"encoding/binary"

	"udm/blk"
	"udm/env"
	"udm/pdata"
)

const (
	SuperBlock   = 0        // block of the superblock
	SuperMagic   = 27022010 // magic number
	SuperVersion = 2        // version of the format

	flagNeedsCheck = 1

	// MaxID is the highest device id.
	MaxID = 1<<24 - 1
)

var le = binary.LittleEndian

// KindSuper is the block kind of the superblock.
var KindSuper = pdata.NewSuperKind(160774, SuperMagic)

var superFormat = &pdata.SuperFormat{Kind: KindSuper, Block: SuperBlock, Metadata: 192, Held: 56,
	NeedsCheck: flagNeedsCheck, Omit: [2]int{64, 320}}

// ReadSuper reads the superblock on dev and nothing else.
func ReadSuper(e env.Env, dev blk.Device) (*Super, error) {
	return ReadSuperAt(pdata.NewBlockManager(e, dev, 0), SuperBlock)
}

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
	Flags             uint32
	UUID              [16]byte
	Version, Time     uint32
	TransactionID     uint64
	HeldRoot          uint64 // block of the metadata snapshot; 0: none
	Data, Metadata    pdata.MapRoot
	MappingRoot       uint64
	DetailsRoot       uint64
	DataBlockSize     uint32 // sectors
	MetadataBlockSize uint32 // sectors
	MetadataBlocks    uint64 // when formatted
	Compat, CompatRO  uint32
	Incompat          uint32
}

// NeedsCheck reports whether needs_check is set.
func (s *Super) NeedsCheck() bool { return s.Flags&flagNeedsCheck != 0 }

// Decode reads a superblock from a block.
func (s *Super) Decode(p []byte) {
	s.Flags = le.Uint32(p[4:])
	copy(s.UUID[:], p[16:])
	s.Version, s.Time = le.Uint32(p[40:]), le.Uint32(p[44:])
	s.TransactionID, s.HeldRoot = le.Uint64(p[48:]), le.Uint64(p[56:])
	s.Data, s.Metadata = pdata.GetMapRoot(p[64:]), pdata.GetMapRoot(p[192:])
	s.MappingRoot, s.DetailsRoot = le.Uint64(p[320:]), le.Uint64(p[328:])
	s.DataBlockSize, s.MetadataBlockSize = le.Uint32(p[336:]), le.Uint32(p[340:])
	s.MetadataBlocks = le.Uint64(p[344:])
	s.Compat, s.CompatRO, s.Incompat = le.Uint32(p[352:]), le.Uint32(p[356:]), le.Uint32(p[360:])
}

// Encode writes the superblock to a block, except for the checksum and the block
// number. Bytes of no field are left unchanged.
func (s *Super) Encode(p []byte) {
	le.PutUint32(p[4:], s.Flags)
	copy(p[16:32], s.UUID[:])
	le.PutUint64(p[32:], SuperMagic)
	le.PutUint32(p[40:], s.Version)
	le.PutUint32(p[44:], s.Time)
	le.PutUint64(p[48:], s.TransactionID)
	le.PutUint64(p[56:], s.HeldRoot)
	clear(p[64:320])
	s.Data.Put(p[64:])
	s.Metadata.Put(p[192:])
	le.PutUint64(p[320:], s.MappingRoot)
	le.PutUint64(p[328:], s.DetailsRoot)
	le.PutUint32(p[336:], s.DataBlockSize)
	le.PutUint32(p[340:], s.MetadataBlockSize)
	le.PutUint64(p[344:], s.MetadataBlocks)
	le.PutUint32(p[352:], s.Compat)
	le.PutUint32(p[356:], s.CompatRO)
	le.PutUint32(p[360:], s.Incompat)
}

// BlockTime is the value of a mapping: a data block and the time when it was mapped.
type BlockTime struct {
	Block uint64
	Time  uint32
}

// Value is v as stored in the tree.
func (v BlockTime) Value() uint64 { return v.Block<<24 | uint64(v.Time) }

// BlockTimeOf decodes a value from the tree.
func BlockTimeOf(v uint64) BlockTime { return BlockTime{v >> 24, uint32(v & (1<<24 - 1))} }

// Details are a device's entry in the details tree.
type Details struct {
	Mapped        uint64 // blocks
	TransactionID uint64 // when it was created
	Created       uint32 // the pool's time then
	Snapshotted   uint32 // the pool's time at its last snapshot
}

// DetailsSize is the size of a device's details in the tree; DetailsCodec encodes and
// decodes them.
const DetailsSize = 24

var DetailsCodec = pdata.Codec[Details]{
	Size: DetailsSize,
	Put: func(p []byte, d Details) {
		le.PutUint64(p, d.Mapped)
		le.PutUint64(p[8:], d.TransactionID)
		le.PutUint32(p[16:], d.Created)
		le.PutUint32(p[20:], d.Snapshotted)
	},
	Get: func(p []byte) Details {
		return Details{le.Uint64(p), le.Uint64(p[8:]), le.Uint32(p[16:]), le.Uint32(p[20:])}
	},
}
