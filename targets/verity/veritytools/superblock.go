package veritytools

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"udm/blk"
	"udm/env"
	"udm/targets/verity"
	"udm/targets/verity/hashtree"
)

const (
	magic          = "verity\x00\x00"
	superblockSize = 512
	// MaxSalt is the size of the superblock's field for the salt, in bytes.
	MaxSalt = 256
	// maxBlock is the largest size of a block in a superblock, in bytes.
	maxBlock = 512 << 10
)

// Header holds the contents of a superblock, or the same parameters of a disk without one.
type Header struct {
	UUID  UUID
	Shape hashtree.Shape
}

// raw is the on-disk superblock, little-endian.
type raw struct {
	Magic      [8]byte
	Version    uint32
	HashType   uint32
	UUID       UUID
	Algorithm  [32]byte
	DataBlock  uint32
	HashBlock  uint32
	DataBlocks uint64
	SaltSize   uint16
	_          [6]byte
	Salt       [MaxSalt]byte
	_          [168]byte
}

// ErrNone reports that there is no superblock.
var ErrNone = errors.New("no superblock of verity found; use --hash-offset if it is elsewhere, or --no-superblock and options if there is none")

// Read reads the superblock at a byte offset of a device.
func Read(e env.Env, hash blk.Device, offset uint64) (*Header, error) {
	if offset%blk.SectorSize != 0 {
		return nil, fmt.Errorf("a superblock cannot start at byte %d; use a multiple of %d", offset, blk.SectorSize)
	}
	p, err := readBytes(e, hash, offset, superblockSize)
	if err != nil {
		return nil, fmt.Errorf("cannot read a superblock at byte %d of %v: %w", offset, hash, err)
	}
	h, err := decode(p)
	if err != nil {
		return nil, fmt.Errorf("%v: %w", hash, err)
	}
	h.Shape.Start = Start(offset, h.Shape.HashBlock, true)
	return h, nil
}

// readBytes reads n bytes at an offset, both multiples of the sector size, also from a
// device with larger logical blocks.
func readBytes(e env.Env, d blk.Device, offset, n uint64) ([]byte, error) {
	block := max(blk.SectorSize, uint64(d.Limits().LogicalBlock))
	first := offset / block * block
	p := make([]byte, (offset+n-first+block-1)/block*block)
	if first/blk.SectorSize+uint64(len(p))/blk.SectorSize > d.Limits().Size {
		return nil, errors.New("it is beyond the end of the device")
	}
	err := blk.ReadSectors(e, d, p, first/blk.SectorSize)
	return p[offset-first:][:n], err
}

func decode(p []byte) (*Header, error) {
	var r raw
	if err := binary.Read(bytes.NewReader(p), binary.LittleEndian, &r); err != nil {
		return nil, err
	}
	switch {
	case string(r.Magic[:]) != magic:
		return nil, ErrNone
	case r.Version != 1:
		return nil, fmt.Errorf("the superblock has version %d; only version 1 is supported", r.Version)
	case r.HashType > 1:
		return nil, fmt.Errorf("the superblock has hash type %d; only 0 and 1 are supported", r.HashType)
	case !isBlock(r.DataBlock) || !isBlock(r.HashBlock):
		return nil, fmt.Errorf("the superblock is damaged: it has blocks of %d and %d bytes", r.DataBlock, r.HashBlock)
	case r.SaltSize > MaxSalt:
		return nil, fmt.Errorf("the superblock is damaged: it has a salt of %d bytes", r.SaltSize)
	}
	name, _, _ := strings.Cut(string(r.Algorithm[:]), "\x00")
	return &Header{r.UUID, hashtree.Shape{Version: int(r.HashType), DataBlock: int(r.DataBlock), HashBlock: int(r.HashBlock),
		DataBlocks: r.DataBlocks, Algorithm: strings.ToLower(name), Salt: r.Salt[:r.SaltSize:r.SaltSize]}}, nil
}

func isBlock(n uint32) bool { return n >= blk.SectorSize && n <= maxBlock && n&(n-1) == 0 }

func (h *Header) encode() []byte {
	s := &h.Shape
	r := raw{Version: 1, HashType: uint32(s.Version), UUID: h.UUID, DataBlock: uint32(s.DataBlock), HashBlock: uint32(s.HashBlock),
		DataBlocks: s.DataBlocks, SaltSize: uint16(len(s.Salt))}
	copy(r.Magic[:], magic)
	copy(r.Algorithm[:], s.Algorithm)
	copy(r.Salt[:], s.Salt)
	var b bytes.Buffer
	binary.Write(&b, binary.LittleEndian, &r) // a write to memory does not fail
	return b.Bytes()
}

// Start returns the first hash block of the tree, given the byte offset of the
// superblock, or of the tree itself without one.
func Start(offset uint64, hashBlock int, superblock bool) uint64 {
	size := uint64(hashBlock)
	if superblock {
		offset += superblockSize + size - 1
	}
	return offset / size
}

// Line returns the table line for the named devices and a root hash.
func (h *Header) Line(data, hash string, root []byte) *verity.Line {
	s := &h.Shape
	salt := hex.EncodeToString(s.Salt)
	if salt == "" {
		salt = "-"
	}
	return &verity.Line{Version: uint(s.Version), Data: data, Hash: hash, DataBlock: s.DataBlock, HashBlock: s.HashBlock, DataBlocks: s.DataBlocks,
		HashStart: s.Start, Algorithm: s.Algorithm, Root: hex.EncodeToString(root), Salt: salt}
}

// Sectors returns the size of the disk in sectors.
func (h *Header) Sectors() uint64 {
	return h.Shape.DataBlocks * uint64(h.Shape.DataBlock/blk.SectorSize)
}
