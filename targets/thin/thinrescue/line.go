package thinrescue

import (
	"fmt"
	"strconv"
	"strings"
	"syscall"

	"udm/dm"
)

// Line is the words of a table line after "thin-rescue".
type Line struct {
	Metadata, Data string // devices
	Volume         string // as [Volume.Name]
	BlockSectors   uint64 // block_size; 0: as the superblock says
	Outdated       bool   // outdated
	Certain        bool   // certain
}

// ParseLine parses the words.
func ParseLine(words []string) (*Line, error) {
	if len(words) < 3 {
		return nil, invalid("Invalid argument count")
	}
	l := &Line{Metadata: words[0], Data: words[1], Volume: words[2]}
	if _, err := strconv.ParseUint(strings.TrimPrefix(l.Volume, "@"), 10, 63); err != nil {
		return nil, invalid("Invalid volume")
	}
	a := dm.NewArgs(words[3:])
	if a.Len() == 0 {
		return l, nil
	}
	n, err := a.Number(0, 4, "Invalid number of options")
	if err != nil {
		return nil, err
	}
	if int(n) != a.Len() {
		return nil, invalid("Invalid number of options")
	}
	for a.Len() > 0 {
		if err := l.option(a); err != nil {
			return nil, err
		}
	}
	return l, nil
}

func (l *Line) option(a *dm.Args) (err error) {
	switch word := a.Next(); word {
	case "outdated":
		l.Outdated = true
	case "certain":
		l.Certain = true
	case "block_size":
		if l.BlockSectors, err = dm.ParseUint64(a.Next()); err != nil || !goodBlock(l.BlockSectors) {
			return invalid("Invalid block size")
		}
	default:
		return invalid("Unrecognised option")
	}
	return nil
}

func (l *Line) Target() string { return "thin-rescue" }

func (l *Line) String() string {
	var opts []string
	if l.BlockSectors != 0 {
		opts = append(opts, "block_size", strconv.FormatUint(l.BlockSectors, 10))
	}
	if l.Outdated {
		opts = append(opts, "outdated")
	}
	if l.Certain {
		opts = append(opts, "certain")
	}
	words := []string{dm.QuoteWord(l.Metadata), dm.QuoteWord(l.Data), l.Volume}
	if len(opts) > 0 {
		words = append(append(words, strconv.Itoa(len(opts))), opts...)
	}
	return strings.Join(words, " ")
}

// Devices implements [dm.Line].
func (l *Line) Devices() []dm.DeviceWord {
	return []dm.DeviceWord{{Name: &l.Metadata}, {Name: &l.Data}}
}

// Status is what a volume says of itself: sectors of mappings, how many of them were found
// by search, and in how many ranges mappings are lost.
type Status struct {
	Source           string
	Mapped, Searched uint64
	Gaps             int
}

// ParseStatus understands a status.
func ParseStatus(words string) (*Status, error) {
	s := &Status{}
	n, err := fmt.Sscanf(words, "%s %d %d %d", &s.Source, &s.Mapped, &s.Searched, &s.Gaps)
	if err != nil || n != 4 || s.String() != words {
		return nil, dm.NotStatus("thin-rescue", words)
	}
	return s, nil
}

func (s *Status) String() string {
	return fmt.Sprintf("%s %d %d %d", s.Source, s.Mapped, s.Searched, s.Gaps)
}

// Usage: what is only read fills nothing.
func (s *Status) Usage() []dm.Usage { return nil }

func invalid(text string) error { return dm.Errorf(syscall.EINVAL, "%s", text) }
