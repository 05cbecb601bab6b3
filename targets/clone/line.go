package clone

import (
	"fmt"
	"math/bits"
	"slices"
	"strings"
	"syscall"

	"udm/dm"
)

// Line is what a table says behind "clone".
type Line struct {
	Metadata, Dest, Source string // devices
	RegionSectors          uint32
	NoHydration            bool   // no_hydration
	NoPassdown             bool   // no_discard_passdown
	Threshold, BatchSize   uint32 // regions

	words []string // from the region on, as they were parsed; the kernel's table keeps them
}

const (
	minRegion  = 1 << 3
	maxRegion  = 1 << 21
	maxRegions = 1 << 31
)

// ParseLine understands the words of a table.
func ParseLine(words []string) (*Line, error) {
	if len(words) < 4 {
		return nil, invalid("Invalid number of arguments")
	}
	l := &Line{Metadata: words[0], Dest: words[1], Source: words[2], Threshold: 1, BatchSize: 1, words: slices.Clone(words[3:])}
	args := dm.NewArgs(words[3:])
	n, err := args.Number(minRegion, maxRegion, "Invalid region size")
	if err != nil {
		return nil, err
	}
	if l.RegionSectors = uint32(n); bits.OnesCount32(l.RegionSectors) != 1 {
		return nil, invalid("Region size is not a power of 2")
	}
	if err := l.parseFeatures(args); err != nil {
		return nil, err
	}
	return l, l.parseCore(args)
}

func invalid(reason string) error { return dm.Errorf(syscall.EINVAL, "%s", reason) }

func (l *Line) parseFeatures(args *dm.Args) error {
	if args.Len() == 0 {
		return nil
	}
	n, err := args.Group(0, 2, "Invalid number of feature arguments")
	if err != nil {
		return err
	}
	for range n {
		switch strings.ToLower(args.Next()) {
		case "no_hydration":
			l.NoHydration = true
		case "no_discard_passdown":
			l.NoPassdown = true
		default:
			return invalid("Invalid feature argument")
		}
	}
	return nil
}

func (l *Line) parseCore(args *dm.Args) error {
	if args.Len() == 0 {
		return nil
	}
	n, err := args.Group(0, 4, "Invalid number of core arguments")
	if err != nil {
		return err
	}
	if n%2 != 0 {
		return invalid("Number of core arguments must be even")
	}
	for range n / 2 {
		name := strings.ToLower(args.Next())
		to := l.number(name)
		if to == nil {
			return invalid("Invalid core argument")
		}
		if *to, err = dm.ParseUint32(args.Next()); err != nil {
			return invalid(fmt.Sprintf("Invalid value for argument `%s'", name))
		}
	}
	return nil
}

// number is the field of a core argument.
func (l *Line) number(name string) *uint32 {
	switch name {
	case "hydration_threshold":
		return &l.Threshold
	case "hydration_batch_size":
		return &l.BatchSize
	}
	return nil
}

func (l *Line) Target() string { return "clone" }

func (l *Line) String() string {
	words := l.words
	if words == nil {
		words = l.made()
	}
	text := dm.QuoteWord(l.Metadata) + " " + dm.QuoteWord(l.Dest) + " " + dm.QuoteWord(l.Source)
	for _, w := range words {
		text += " " + dm.QuoteWord(w)
	}
	return text
}

// made is the words of a line that was not parsed.
func (l *Line) made() []string {
	words := append([]string{fmt.Sprint(l.RegionSectors)}, features(l.NoHydration, l.NoPassdown)...)
	return append(words, "4", "hydration_threshold", fmt.Sprint(l.Threshold), "hydration_batch_size", fmt.Sprint(l.BatchSize))
}

// features is the features with their number.
func features(noHydration, noPassdown bool) []string {
	words := []string{""}
	if noHydration {
		words = append(words, "no_hydration")
	}
	if noPassdown {
		words = append(words, "no_discard_passdown")
	}
	words[0] = fmt.Sprint(len(words) - 1)
	return words
}

func (l *Line) Devices() []dm.DeviceWord {
	return []dm.DeviceWord{{Name: &l.Metadata}, {Name: &l.Dest}, {Name: &l.Source}}
}
