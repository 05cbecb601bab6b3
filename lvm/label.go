package lvm

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"udm/blk"
	"udm/env"
)

const (
	labelSectors = 4 // number of sectors that may hold the label
	labelID      = "LABELONE"
	labelType    = "LVM2 001"
	labelHeader  = 32 // bytes before the physical volume's header
	labelVersion = 2  // of the extension
	labelUsed    = 1  // flag: the disk belongs to a group

	maxAreas = 16 // of each kind: more do not fit into a sector
)

var (
	errChecksum = errors.New("wrong checksum")
	errRead     = errors.New("cannot be read")
)

// checksum is LVM's CRC-32: with its own initial value, and not inverted.
func checksum(b []byte) uint32 {
	const begin = 0xf597a6cf
	return ^crc32.Update(^uint32(begin), crc32.IEEETable, b)
}

// Range is a part of a disk, in bytes.
type Range struct{ Offset, Size uint64 }

// Label is the content of a disk's label.
type Label struct {
	Sector   uint64 // sector of the label
	ID       UUID
	Size     uint64  // bytes of the disk
	Data     []Range // a size of 0: to the end of the disk
	Metadata []Range

	// The extension; Version is 0 if there is none.
	Version    uint32
	Flags      uint32
	Used       bool // the disk belongs to a group
	Bootloader []Range
}

// readLabel finds the label of a disk. It returns nil without an error if the disk
// has none. A damaged label counts only if there is no other.
func readLabel(e env.Env, d Disk) (*Label, error) {
	size := d.Device.Limits().Size
	n := min(size, labelSectors)
	buf := make([]byte, n*blk.SectorSize)
	if n == 0 {
		return nil, nil
	}
	if err := readBytes(e, d.Device, buf, 0); err != nil {
		return nil, &DiskError{d.Name, 0, "label", err}
	}
	var damage error
	for s := range n {
		sector := buf[s*blk.SectorSize:][:blk.SectorSize]
		if string(sector[:8]) != labelID {
			continue
		}
		l, err := parseLabel(sector, s)
		if err == nil {
			return l, nil
		}
		if damage == nil {
			damage = &DiskError{d.Name, s * blk.SectorSize, "label", err}
		}
	}
	return nil, damage
}

// readBytes fills p with whole sectors from an offset at a sector boundary.
func readBytes(e env.Env, d blk.Device, p []byte, offset uint64) error {
	sector, n := offset/blk.SectorSize, uint64(len(p))/blk.SectorSize
	if size := d.Limits().Size; sector > size || n > size-sector {
		return fmt.Errorf("lies beyond the end of the disk, which has %d bytes", size*blk.SectorSize)
	}
	if err := readAligned(e, d, p, sector); err != nil {
		return fmt.Errorf("%w: %w", errRead, err)
	}
	return nil
}

// readAligned reads whole logical blocks of a disk whose blocks are larger than
// sectors.
func readAligned(e env.Env, d blk.Device, p []byte, sector uint64) error {
	block := max(uint64(d.Limits().LogicalBlock)/blk.SectorSize, 1)
	n := uint64(len(p)) / blk.SectorSize
	begin, end := sector-sector%block, (sector+n+block-1)/block*block
	if begin == sector && end == sector+n {
		return blk.ReadSectors(e, d, p, sector)
	}
	whole := make([]byte, (end-begin)*blk.SectorSize)
	if err := blk.ReadSectors(e, d, whole, begin); err != nil {
		return err
	}
	copy(p, whole[(sector-begin)*blk.SectorSize:])
	return nil
}

func parseLabel(sector []byte, at uint64) (*Label, error) {
	le := binary.LittleEndian
	switch n := le.Uint64(sector[8:]); {
	case n != at:
		return nil, fmt.Errorf("it says that it is in sector %d", n)
	case le.Uint32(sector[16:]) != checksum(sector[20:]):
		return nil, errChecksum
	case string(sector[24:32]) != labelType:
		return nil, fmt.Errorf("its type is %q, want %q", sector[24:32], labelType)
	case le.Uint32(sector[20:]) != labelHeader:
		return nil, fmt.Errorf("its contents begin at %d, want %d", le.Uint32(sector[20:]), labelHeader)
	}
	l := &Label{Sector: at}
	return l, l.parse(&fields{rest: sector[labelHeader:]})
}

// parse reads the header of the physical volume.
func (l *Label) parse(f *fields) error {
	id, ok := parseUUID(string(f.take(uuidLength)))
	if !ok {
		return errors.New("its UUID is invalid")
	}
	l.ID, l.Size = id, f.uint64()
	l.Data, l.Metadata = f.ranges(), f.ranges()
	if l.Version = f.uint32(); l.Version != 0 {
		l.Flags = f.uint32()
		l.Used = l.Flags&labelUsed != 0 && l.Version >= labelVersion
		l.Bootloader = f.ranges()
	}
	if f.short {
		return errors.New("its lists of areas have no end")
	}
	return nil
}

// fields are read from the front of rest; missing ones are zero.
type fields struct {
	rest  []byte
	short bool
}

func (f *fields) take(n int) []byte {
	if len(f.rest) < n {
		f.rest, f.short = nil, true
		return make([]byte, n)
	}
	p := f.rest[:n]
	f.rest = f.rest[n:]
	return p
}

func (f *fields) uint32() uint32 { return binary.LittleEndian.Uint32(f.take(4)) }
func (f *fields) uint64() uint64 { return binary.LittleEndian.Uint64(f.take(8)) }

// ranges reads a list that ends with an offset of 0.
func (f *fields) ranges() (rs []Range) {
	for !f.short {
		r := Range{f.uint64(), f.uint64()}
		if r.Offset == 0 {
			return rs
		}
		if rs = append(rs, r); len(rs) > maxAreas {
			f.short = true
		}
	}
	return nil
}

// zeroes reports whether p contains only zeroes.
func zeroes(p []byte) bool { return len(bytes.Trim(p, "\x00")) == 0 }
