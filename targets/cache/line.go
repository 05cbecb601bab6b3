package cache

import (
	"slices"
	"strconv"
	"strings"
	"syscall"

	"udm/blk"
	"udm/dm"
)

// Bounds of the block size in sectors; it must be a multiple of the smallest.
const (
	minBlock = 32 << 10 / blk.SectorSize
	maxBlock = 1 << 30 / blk.SectorSize
)

// Line is the parameters of a cache line in a table. The words behind the devices are
// kept as they were written, as the kernel shows them.
type Line struct {
	Metadata, Cache, Origin string   // devices
	BlockSectors            uint64   // of a block of the cache
	Features                []string // in any case of letters
	Policy                  string
	PolicyArgs              []string // keys and values
	Rest                    []string // what the kernel does not look at
}

// Mode says where writes go.
type Mode string

const (
	Writeback    Mode = "writeback"
	Writethrough Mode = "writethrough"
	Passthrough  Mode = "passthrough"
)

const (
	metadata2  = "metadata2"
	noPassdown = "no_discard_passdown"
)

func (l *Line) has(feature string) bool {
	return slices.ContainsFunc(l.Features, func(f string) bool { return strings.EqualFold(f, feature) })
}

// Mode is the mode that the line asks for.
func (l *Line) Mode() Mode {
	for _, m := range []Mode{Writethrough, Passthrough} {
		if l.has(string(m)) {
			return m
		}
	}
	return Writeback
}

// Metadata2 reports whether new metadata has dirty bits in a bitset. Metadata that is there
// keeps its version.
func (l *Line) Metadata2() bool { return l.has(metadata2) }

// NoPassdown reports whether discards do not reach the origin.
func (l *Line) NoPassdown() bool { return l.has(noPassdown) }

// ParseLine parses the parameters.
func ParseLine(words []string) (*Line, error) {
	l, err := parseLine(words)
	if err != nil {
		return nil, err
	}
	return l, nil
}

// parseLine returns the devices beside an error that comes after them.
func parseLine(words []string) (*Line, error) {
	l := &Line{}
	a := dm.NewArgs(words)
	for _, to := range []*string{&l.Metadata, &l.Cache, &l.Origin} {
		if a.Len() == 0 {
			return l, invalid("Insufficient args")
		}
		*to = a.Next()
	}
	for _, parse := range []func(*dm.Args) error{l.parseBlock, l.parseFeatures, l.parsePolicy} {
		if err := parse(a); err != nil {
			return l, err
		}
	}
	for a.Len() > 0 {
		l.Rest = append(l.Rest, a.Next())
	}
	return l, nil
}

func (l *Line) parseBlock(a *dm.Args) error {
	if a.Len() == 0 {
		return invalid("Insufficient args")
	}
	n, err := dm.ParseUint64(a.Next())
	if err != nil || n < minBlock || n > maxBlock || n%minBlock != 0 {
		return invalid("Invalid data block size")
	}
	l.BlockSectors = n
	return nil
}

func (l *Line) parseFeatures(a *dm.Args) error {
	n, err := a.Group(0, 3, "Invalid number of cache feature arguments")
	if err != nil {
		return err
	}
	modes := 0
	for range n {
		f := a.Next()
		switch strings.ToLower(f) {
		case string(Writeback), string(Writethrough), string(Passthrough):
			modes++
		case metadata2, noPassdown:
		default:
			return invalid("Unrecognised cache feature requested")
		}
		l.Features = append(l.Features, f)
	}
	if modes > 1 {
		return invalid("Duplicate cache io_mode features requested")
	}
	return nil
}

func (l *Line) parsePolicy(a *dm.Args) error {
	if a.Len() == 0 {
		return invalid("Insufficient args")
	}
	l.Policy = a.Next()
	n, err := a.Group(0, 1024, "Invalid number of policy arguments")
	if err != nil {
		return err
	}
	for range n {
		l.PolicyArgs = append(l.PolicyArgs, a.Next())
	}
	return nil
}

// Target returns the type's name.
func (l *Line) Target() string { return "cache" }

func (l *Line) String() string {
	words := []string{dm.QuoteWord(l.Metadata), dm.QuoteWord(l.Cache), dm.QuoteWord(l.Origin), strconv.FormatUint(l.BlockSectors, 10)}
	words = append(words, strconv.Itoa(len(l.Features)))
	words = append(words, l.Features...)
	words = append(words, dm.QuoteWord(l.Policy), strconv.Itoa(len(l.PolicyArgs)))
	for _, w := range slices.Concat(l.PolicyArgs, l.Rest) {
		words = append(words, dm.QuoteWord(w))
	}
	return strings.Join(words, " ")
}

// Devices returns the words that name devices.
func (l *Line) Devices() []dm.DeviceWord {
	return []dm.DeviceWord{{Name: &l.Metadata}, {Name: &l.Cache}, {Name: &l.Origin}}
}

func invalid(reason string) error { return dm.Errorf(syscall.EINVAL, "%s", reason) }
