package cachemeta

import (
	"bytes"
	"encoding/binary"

	"udm/blk"
	"udm/env"
	"udm/pdata"
)

const (
	SuperBlock = 0         // block of the superblock
	SuperMagic = 0614_2003 // magic number, octal as in the kernel

	// FlagClean says that dirty bits, hints and discards are current.
	FlagClean      = 1
	FlagNeedsCheck = 2

	// Valid and Dirty are the flags of a mapping.
	Valid = 1
	Dirty = 2
)

var le = binary.LittleEndian

// KindSuper is the block kind of the superblock.
var KindSuper = pdata.NewSuperKind(9031977, SuperMagic)

var superFormat = &pdata.SuperFormat{Kind: KindSuper, Block: SuperBlock, Metadata: 64, NeedsCheck: FlagNeedsCheck}

// Super is a superblock. The package comment describes its fields.
type Super struct {
	Flags             uint32
	UUID              [16]byte
	Version           uint32
	PolicyName        string
	PolicyVersion     [3]uint32
	HintSize          uint32
	Metadata          pdata.MapRoot
	Mappings          uint64
	Hints             uint64
	Discards          uint64
	DiscardBlockSize  uint64
	DiscardBlocks     uint64
	BlockSize         uint32
	MetadataBlockSize uint32
	CacheBlocks       uint32
	Compat, CompatRO  uint32
	Incompat          uint32
	Stats             Stats
	DirtyRoot         uint64
}

// Stats are the counts of hits and misses.
type Stats struct{ ReadHits, ReadMisses, WriteHits, WriteMisses uint32 }

// Clean reports whether dirty bits, hints and discards are current.
func (s *Super) Clean() bool { return s.Flags&FlagClean != 0 }

// NeedsCheck reports whether needs_check is set.
func (s *Super) NeedsCheck() bool { return s.Flags&FlagNeedsCheck != 0 }

// ReadSuper reads the superblock on dev and nothing else.
func ReadSuper(e env.Env, dev blk.Device) (*Super, error) {
	b, err := pdata.NewBlockManager(e, dev, 0).Read(SuperBlock, KindSuper)
	if err != nil {
		return nil, pdata.In("superblock", err)
	}
	var s Super
	s.Decode(b.Bytes())
	return &s, nil
}

// words are the fields that are a number of 32 bits, by their offset.
func (s *Super) words() map[int]*uint32 {
	st := &s.Stats
	return map[int]*uint32{4: &s.Flags, 40: &s.Version, 60: &s.HintSize, 232: &s.BlockSize, 236: &s.MetadataBlockSize,
		240: &s.CacheBlocks, 244: &s.Compat, 248: &s.CompatRO, 252: &s.Incompat,
		256: &st.ReadHits, 260: &st.ReadMisses, 264: &st.WriteHits, 268: &st.WriteMisses,
		272: &s.PolicyVersion[0], 276: &s.PolicyVersion[1], 280: &s.PolicyVersion[2]}
}

// longs are those of 64 bits.
func (s *Super) longs() map[int]*uint64 {
	m := map[int]*uint64{192: &s.Mappings, 200: &s.Hints, 208: &s.Discards, 216: &s.DiscardBlockSize, 224: &s.DiscardBlocks}
	if s.Version >= 2 {
		m[284] = &s.DirtyRoot
	}
	return m
}

// Decode reads a superblock from a block.
func (s *Super) Decode(p []byte) {
	for at, v := range s.words() {
		*v = le.Uint32(p[at:])
	}
	for at, v := range s.longs() {
		*v = le.Uint64(p[at:])
	}
	copy(s.UUID[:], p[16:])
	name, _, _ := bytes.Cut(p[44:60], []byte{0})
	s.PolicyName = string(name)
	s.Metadata = pdata.GetMapRoot(p[64:])
}

// Encode writes the superblock to a block, except for the checksum and the block
// number. Bytes of no field are left unchanged.
func (s *Super) Encode(p []byte) {
	for at, v := range s.words() {
		le.PutUint32(p[at:], *v)
	}
	for at, v := range s.longs() {
		le.PutUint64(p[at:], *v)
	}
	copy(p[16:32], s.UUID[:])
	le.PutUint64(p[32:], SuperMagic)
	clear(p[44:60])
	copy(p[44:59], s.PolicyName)
	clear(p[64:192])
	s.Metadata.Put(p[64:])
}

// Mapping is the value of a block of the cache.
type Mapping struct {
	OBlock uint64
	Flags  uint16
}

// Value is m as stored in the array.
func (m Mapping) Value() uint64 { return m.OBlock<<16 | uint64(m.Flags) }

// MappingOf decodes a value from the array.
func MappingOf(v uint64) Mapping { return Mapping{v >> 16, uint16(v)} }
