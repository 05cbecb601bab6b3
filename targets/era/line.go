package era

import (
	"fmt"
	"math"
	"strconv"
	"syscall"

	"udm/dm"
)

// Line is what a table says behind "era".
type Line struct {
	Metadata, Origin string // devices
	BlockSectors     uint32
}

const minBlock = 8 // sectors; a block is a multiple of it

// ParseLine understands the words of a table.
func ParseLine(words []string) (*Line, error) {
	if len(words) != 3 {
		return nil, invalid("Invalid argument count")
	}
	l := &Line{Metadata: words[0], Origin: words[1]}
	n, err := dm.ParseUint(words[2], math.MaxUint64)
	if err != nil {
		return nil, invalid("Error parsing block size")
	}
	if l.BlockSectors = uint32(n); l.BlockSectors == 0 || l.BlockSectors%minBlock != 0 {
		return nil, invalid("Invalid block size")
	}
	return l, nil
}

func invalid(reason string) error { return dm.Errorf(syscall.EINVAL, "%s", reason) }

func (l *Line) Target() string { return "era" }

func (l *Line) String() string {
	return fmt.Sprintf("%s %s %d", dm.QuoteWord(l.Metadata), dm.QuoteWord(l.Origin), l.BlockSectors)
}

func (l *Line) Devices() []dm.DeviceWord {
	return []dm.DeviceWord{{Name: &l.Metadata}, {Name: &l.Origin}}
}

// Status is what dmsetup status says behind "era".
type Status struct {
	Failed       bool   // the metadata cannot be used; nothing else is known
	Used, Total  uint64 // metadata blocks of 4 KiB
	Era          uint32
	MetadataSnap uint64 // block; 0: none
}

// ParseStatus understands a status.
func ParseStatus(words string) (*Status, error) {
	s := &Status{Failed: words == "Error"}
	if s.Failed {
		return s, nil
	}
	var snap string
	n, _ := fmt.Sscanf(words, "8 %d/%d %d %s", &s.Used, &s.Total, &s.Era, &snap)
	s.MetadataSnap, _ = strconv.ParseUint(snap, 10, 64)
	if n != 4 || s.String() != words {
		return nil, dm.NotStatus("era", words)
	}
	return s, nil
}

func (s *Status) String() string {
	if s.Failed {
		return "Error"
	}
	snap := "-"
	if s.MetadataSnap != 0 {
		snap = strconv.FormatUint(s.MetadataSnap, 10)
	}
	return fmt.Sprintf("8 %d/%d %d %s", s.Used, s.Total, s.Era, snap)
}

// Usage is the use of the metadata.
func (s *Status) Usage() []dm.Usage {
	if s.Failed {
		return []dm.Usage{{State: s.String()}}
	}
	return []dm.Usage{{What: "metadata", Used: s.Used, Total: s.Total, Unit: 4096}}
}
