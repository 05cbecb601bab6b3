package lvm

import (
	"encoding/binary"

	"udm/blk"
)

// encode returns the label's sector.
func (l *Label) encode() []byte {
	le := binary.LittleEndian
	b := append(make([]byte, labelHeader), l.ID...)
	b = le.AppendUint64(b, l.Size)
	b = appendRanges(b, l.Data)
	b = appendRanges(b, l.Metadata)
	if l.Version != 0 {
		b = le.AppendUint32(b, l.Version)
		b = le.AppendUint32(b, l.flags())
		b = appendRanges(b, l.Bootloader)
	}
	sector := make([]byte, blk.SectorSize)
	copy(sector, b)
	copy(sector, labelID)
	le.PutUint64(sector[8:], l.Sector)
	le.PutUint32(sector[20:], labelHeader)
	copy(sector[24:], labelType)
	le.PutUint32(sector[16:], checksum(sector[20:]))
	return sector
}

func (l *Label) flags() uint32 {
	if l.Used {
		return l.Flags | labelUsed
	}
	return l.Flags &^ labelUsed
}

func appendRanges(b []byte, rs []Range) []byte {
	le := binary.LittleEndian
	for _, r := range append(rs[:len(rs):len(rs)], Range{}) {
		b = le.AppendUint64(le.AppendUint64(b, r.Offset), r.Size)
	}
	return b
}

// encodeHeader returns the header of an area, with the places of the committed and of
// the precommitted text.
func encodeHeader(r Range, committed, precommitted slot) []byte {
	le := binary.LittleEndian
	b := append(make([]byte, 4), areaID...)
	b = le.AppendUint32(b, areaVersion)
	b = le.AppendUint64(le.AppendUint64(b, r.Offset), r.Size)
	for _, s := range []slot{committed, precommitted} {
		b = le.AppendUint64(le.AppendUint64(b, s.offset), s.size)
		b = le.AppendUint32(le.AppendUint32(b, s.checksum), s.flags)
	}
	header := make([]byte, areaHeader)
	copy(header, b)
	le.PutUint32(header, checksum(header[4:]))
	return header
}
