package integrity

import (
	"encoding/binary"
	"errors"
	"fmt"

	"udm/blk"
	"udm/env"
)

const (
	magic      = "integrt\x00"
	sbSectors  = 8
	maxVersion = 5
)

// Flags of a superblock.
const (
	flagJournalMAC    = 1  // the journal has MACs
	flagRecalculating = 2  // tags up to RecalcSector are right, the others not yet
	flagBitmap        = 4  // the journal holds a bitmap of what was written
	flagPadding       = 8  // runs of tags are padded to 4 KiB, else to 128 KiB
	flagHMAC          = 16 // hashes cover the salt
)

// Superblock is the first sectors of a disk.
type Superblock struct {
	Version         uint8
	LogInterleave   uint8 // log2 sectors
	TagSize         uint16
	JournalSections uint32
	Provided        uint64 // sectors of data
	Flags           uint32
	LogBlock        uint8 // log2 sectors
	LogBitmapBit    uint8 // log2 blocks
	RecalcSector    uint64
	Salt            [16]byte
}

// ErrNone says that there is no superblock.
var ErrNone = errors.New("no superblock of integrity is there; udm integrity format makes one")

// ReadSuperblock reads the superblock at a sector of a device.
func ReadSuperblock(e env.Env, d blk.Device, sector uint64) (*Superblock, error) {
	p := make([]byte, sbSectors*blk.SectorSize)
	if size := d.Limits().Size; sector > size || size-sector < sbSectors {
		return nil, ErrNone
	}
	if err := blk.ReadSectors(e, d, p, sector); err != nil {
		return nil, err
	}
	if string(p[:8]) != magic {
		return nil, ErrNone
	}
	s := decodeSuperblock(p)
	if s.Version == 0 || s.Version > maxVersion {
		return nil, fmt.Errorf("the superblock has version %d; 1 to %d are known", s.Version, maxVersion)
	}
	return s, nil
}

func decodeSuperblock(p []byte) *Superblock {
	le := binary.LittleEndian
	s := &Superblock{Version: p[8], LogInterleave: p[9], TagSize: le.Uint16(p[10:]), JournalSections: le.Uint32(p[12:]), Provided: le.Uint64(p[16:]),
		Flags: le.Uint32(p[24:]), LogBlock: p[28], LogBitmapBit: p[29], RecalcSector: le.Uint64(p[32:])}
	copy(s.Salt[:], p[48:])
	return s
}

func (s *Superblock) encode() []byte {
	le := binary.LittleEndian
	p := make([]byte, sbSectors*blk.SectorSize)
	copy(p, magic)
	p[8], p[9] = s.Version, s.LogInterleave
	le.PutUint16(p[10:], s.TagSize)
	le.PutUint32(p[12:], s.JournalSections)
	le.PutUint64(p[16:], s.Provided)
	le.PutUint32(p[24:], s.Flags)
	p[28], p[29] = s.LogBlock, s.LogBitmapBit
	le.PutUint64(p[32:], s.RecalcSector)
	copy(p[48:], s.Salt[:])
	return p
}

// setVersion sets the lowest version that has all that the superblock uses.
func (s *Superblock) setVersion(metaDevice bool) {
	switch {
	case s.Flags&flagHMAC != 0:
		s.Version = 5
	case s.Flags&flagPadding != 0:
		s.Version = 4
	case s.Flags&flagBitmap != 0:
		s.Version = 3
	case metaDevice || s.Flags&flagRecalculating != 0:
		s.Version = 2
	default:
		s.Version = 1
	}
}

// Has reports which of the flags' names are set, for people.
func (s *Superblock) Has() (names []string) {
	for _, f := range []struct {
		bit  uint32
		name string
	}{{flagJournalMAC, "have_journal_mac"}, {flagRecalculating, "recalculating"}, {flagBitmap, "dirty_bitmap"}, {flagPadding, "fix_padding"}, {flagHMAC, "fix_hmac"}} {
		if s.Flags&f.bit != 0 {
			names = append(names, f.name)
		}
	}
	return names
}
