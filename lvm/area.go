package lvm

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"udm/blk"
	"udm/env"
	"udm/lvm/text"
)

const (
	areaID      = " LVM2 x[5A%r0N*>"
	areaVersion = 1
	areaHeader  = blk.SectorSize
	areaSmall   = 2 * areaHeader

	// maxText is the maximum length of a text in bytes: about twenty thousand
	// volumes.
	maxText = 16 << 20
)

// Area is a metadata area of a disk.
type Area struct {
	Range
	Ignored bool
	Text    *Text // the committed text; nil: none, or not kept up to date, or Err
	Err     error // a *DiskError: the area, or its text, is damaged
}

// Text is the text of a volume group, decoded.
type Text struct {
	Offset   uint64 // in the area
	Size     uint64 // including its NUL
	Checksum uint32
	Section  *text.Section
}

// slot is the place of a text, as given in an area's header.
type slot struct {
	offset, size    uint64
	checksum, flags uint32
}

func (s *slot) ignored() bool { return s.flags&1 != 0 }

// readArea reads the header of an area and its committed text.
func readArea(e env.Env, d Disk, r Range) *Area {
	a := &Area{Range: r}
	fail := func(offset uint64, what string, err error) *Area {
		a.Err = &DiskError{d.Name, r.Offset + offset, what, err}
		return a
	}
	s, err := readHeader(e, d.Device, r)
	if err != nil {
		return fail(0, "metadata area", err)
	}
	if a.Ignored = s.ignored(); a.Ignored || s.offset == 0 {
		return a
	}
	if a.Text, err = readText(e, d.Device, r, s); err != nil {
		return fail(s.offset, "metadata", err)
	}
	return a
}

// readHeader returns the slot of the committed text.
func readHeader(e env.Env, d blk.Device, r Range) (s slot, err error) {
	size := d.Limits().Size * blk.SectorSize
	if r.Offset%blk.SectorSize != 0 || r.Size%blk.SectorSize != 0 || r.Size < areaSmall {
		return s, fmt.Errorf("an area of %d bytes is impossible there", r.Size)
	}
	if r.Offset > size || r.Size > size-r.Offset {
		return s, fmt.Errorf("its %d bytes lie beyond the end of the disk, which has %d bytes", r.Size, size)
	}
	buf := make([]byte, areaHeader)
	if err := readBytes(e, d, buf, r.Offset); err != nil {
		return s, err
	}
	return parseHeader(buf, r)
}

func parseHeader(buf []byte, r Range) (s slot, err error) {
	le := binary.LittleEndian
	f := &fields{rest: buf[40:]}
	switch {
	case zeroes(buf):
		return s, errors.New("its header is empty")
	case le.Uint32(buf) != checksum(buf[4:]):
		return s, errChecksum
	case string(buf[4:20]) != areaID:
		return s, errors.New("it does not have the id of a metadata area")
	case le.Uint32(buf[20:]) != areaVersion:
		return s, fmt.Errorf("its version is %d, want %d", le.Uint32(buf[20:]), areaVersion)
	case le.Uint64(buf[24:]) != r.Offset:
		return s, fmt.Errorf("it says that it is at byte %d", le.Uint64(buf[24:]))
	case le.Uint64(buf[32:]) != r.Size:
		return s, fmt.Errorf("it says that it has %d bytes, and the label says %d", le.Uint64(buf[32:]), r.Size)
	}
	return slot{f.uint64(), f.uint64(), f.uint32(), f.uint32()}, nil
}

// readText reads a text of an area, which may wrap around to the start of the ring.
func readText(e env.Env, d blk.Device, r Range, s slot) (*Text, error) {
	ring := r.Size - areaHeader
	if s.offset < areaHeader || s.offset >= r.Size || s.offset%blk.SectorSize != 0 || s.size == 0 || s.size > min(ring, maxText) {
		return nil, fmt.Errorf("a text of %d bytes is impossible there", s.size)
	}
	buf, err := readRing(e, d, r, s)
	if err != nil {
		return nil, err
	}
	if checksum(buf) != s.checksum {
		return nil, errChecksum
	}
	body := bytes.TrimSuffix(buf, []byte{0})
	if len(body) == len(buf) || bytes.IndexByte(body, 0) >= 0 {
		return nil, errors.New("it does not end with its only NUL")
	}
	section, err := text.Parse(string(body))
	if err != nil {
		return nil, err
	}
	return &Text{s.offset, s.size, s.checksum, section}, nil
}

// readRing reads the text of a slot, in one or two parts.
func readRing(e env.Env, d blk.Device, r Range, s slot) ([]byte, error) {
	padded := (s.size + blk.SectorSize - 1) / blk.SectorSize * blk.SectorSize
	buf := make([]byte, padded)
	first := min(padded, r.Size-s.offset)
	err := readBytes(e, d, buf[:first], r.Offset+s.offset)
	if err == nil && first < padded {
		err = readBytes(e, d, buf[first:], r.Offset+areaHeader)
	}
	return buf[:s.size], err
}
