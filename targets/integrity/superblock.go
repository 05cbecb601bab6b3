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
	flagRecalculating = 2  // only sectors below RecalcSector have valid tags
	flagBitmap        = 4  // the journal area holds a bitmap of regions being written
	flagPadding       = 8  // runs of tags are padded to 4 KiB instead of 128 KiB
	flagHMAC          = 16 // hashes include the salt
)

// Superblock is the superblock of a disk.
type Superblock struct {
	Version         uint8
	LogInterleave   uint8  // log2 of the sectors of data in an area; 0 with a meta device
	TagSize         uint16 // bytes
	JournalSections uint32
	Provided        uint64 // sectors of data
	Flags           uint32
	LogBlock        uint8 // log2 of the sectors in a block
	LogBitmapBit    uint8 // log2 of the blocks for each bit of the bitmap
	RecalcSector    uint64
	Salt            [16]byte
}

// ErrNone reports that there is no superblock.
var ErrNone = errors.New("no superblock of integrity found; use udm integrity format to create one")

// ReadSuperblock reads the superblock at a sector of a device.
func ReadSuperblock(e env.Env, d blk.Device, sector uint64) (*Superblock, error) {
	p, err := readEncoded(e, d, sector)
	if err != nil {
		return nil, err
	}
	return parseSuperblock(p)
}

// readEncoded reads the sectors of a superblock.
func readEncoded(e env.Env, d blk.Device, sector uint64) ([]byte, error) {
	if size := d.Limits().Size; sector > size || size-sector < sbSectors {
		return nil, ErrNone
	}
	p := make([]byte, sbSectors*blk.SectorSize)
	return p, blk.ReadSectors(e, d, p, sector)
}

func parseSuperblock(p []byte) (*Superblock, error) {
	if string(p[:8]) != magic {
		return nil, ErrNone
	}
	s := decodeSuperblock(p)
	if s.Version == 0 || s.Version > maxVersion {
		return nil, fmt.Errorf("the superblock has version %d; versions 1 to %d are supported", s.Version, maxVersion)
	}
	return s, s.checkFlags()
}

// checkFlags returns an error for flags that superblocks of the version do not have.
func (s *Superblock) checkFlags() error {
	lowest := *s
	if lowest.setVersion(false, ""); lowest.Version > s.Version {
		return fmt.Errorf("the superblock is damaged: it has version %d, and flags of version %d", s.Version, lowest.Version)
	}
	return nil
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

// setVersion sets the lowest version that supports the features and the mode in use.
func (s *Superblock) setVersion(metaDevice bool, mode string) {
	switch {
	case s.Flags&flagHMAC != 0:
		s.Version = 5
	case s.Flags&flagPadding != 0:
		s.Version = 4
	case mode == "B" || s.Flags&flagBitmap != 0:
		s.Version = 3
	case metaDevice || s.Flags&flagRecalculating != 0:
		s.Version = 2
	default:
		s.Version = 1
	}
}

// FlagNames returns the names of the flags that are set.
func (s *Superblock) FlagNames() (names []string) {
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
