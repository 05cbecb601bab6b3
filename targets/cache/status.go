package cache

import (
	"fmt"
	"strconv"
	"strings"

	"udm/blk"
	"udm/dm"
	"udm/pdata"
)

// Status is the status line of a cache: the figures, or a State that replaces them.
type Status struct {
	State         State
	UsedMetadata  uint64 // blocks of 4 KiB
	TotalMetadata uint64
	BlockSectors  uint64
	Resident      uint64 // blocks of the cache that are in use
	Blocks        uint64 // of the cache

	ReadHits, ReadMisses   uint64
	WriteHits, WriteMisses uint64
	Demotions, Promotions  uint64
	Dirty                  uint64 // blocks that differ from the origin's

	Metadata2          bool
	Mode               Mode
	NoPassdown         bool
	MigrationThreshold uint64 // sectors
	Policy             string
	PolicyArgs         []string
	ReadOnly           bool // the metadata cannot be changed
	NeedsCheck         bool
}

// State is the word that replaces the figures.
type State string

const (
	Figures State = ""
	Fail    State = "Fail"  // the metadata has failed for good
	Error   State = "Error" // the metadata could not be read this time
)

// ParseStatus parses a status line.
func ParseStatus(status string) (*Status, error) {
	s := &Status{State: State(status)}
	if s.State == Fail || s.State == Error {
		return s, nil
	}
	s.State = Figures
	if !s.parse(strings.Split(status, " ")) || s.String() != status {
		return nil, dm.NotStatus("cache", status)
	}
	return s, nil
}

// numbers are the figures before the features; those at odd places of a pair are
// separated by a slash.
func (s *Status) numbers() []*uint64 {
	return []*uint64{&s.ReadHits, &s.ReadMisses, &s.WriteHits, &s.WriteMisses, &s.Demotions, &s.Promotions, &s.Dirty}
}

func (s *Status) parse(w []string) bool {
	if len(w) < 12 || w[0] != "8" {
		return false
	}
	ok := pair(w[1], &s.UsedMetadata, &s.TotalMetadata) && number(w[2], &s.BlockSectors) && pair(w[3], &s.Resident, &s.Blocks)
	for i, to := range s.numbers() {
		ok = ok && number(w[4+i], to)
	}
	features, w, found := group(w[11:])
	if !ok || !found || !s.parseFeatures(features) {
		return false
	}
	core, w, found := group(w)
	if !found || len(core) != 2 || core[0] != "migration_threshold" || !number(core[1], &s.MigrationThreshold) || len(w) == 0 {
		return false
	}
	s.Policy = w[0]
	s.PolicyArgs, w, found = group(w[1:])
	if !found || len(w) < 2 {
		return false
	}
	s.ReadOnly, s.NeedsCheck = w[0] == "ro", w[1] == "needs_check"
	return true
}

func (s *Status) parseFeatures(words []string) bool {
	for _, f := range words {
		switch f {
		case metadata2:
			s.Metadata2 = true
		case noPassdown:
			s.NoPassdown = true
		default:
			s.Mode = Mode(f)
		}
	}
	return s.Mode == Writeback || s.Mode == Writethrough || s.Mode == Passthrough
}

func number(word string, to *uint64) bool {
	n, err := strconv.ParseUint(word, 10, 64)
	*to = n
	return err == nil
}

func pair(word string, a, b *uint64) bool {
	x, y, ok := strings.Cut(word, "/")
	return ok && number(x, a) && number(y, b)
}

// group takes a count and so many words.
func group(w []string) (words, rest []string, ok bool) {
	if len(w) == 0 {
		return nil, nil, false
	}
	n, err := strconv.ParseUint(w[0], 10, 16)
	if err != nil || int(n) > len(w)-1 {
		return nil, nil, false
	}
	return w[1 : 1+n : 1+n], w[1+n:], true
}

func (s *Status) String() string {
	if s.State != Figures {
		return string(s.State)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%d %d/%d %d %d/%d ", pdata.BlockSectors, s.UsedMetadata, s.TotalMetadata, s.BlockSectors, s.Resident, s.Blocks)
	for _, n := range s.numbers() {
		fmt.Fprintf(&b, "%d ", *n)
	}
	features := []string{string(s.Mode)}
	if s.Metadata2 {
		features = []string{metadata2, string(s.Mode)}
	}
	if s.NoPassdown {
		features = append(features, noPassdown)
	}
	fmt.Fprintf(&b, "%d %s 2 migration_threshold %d %s ", len(features), strings.Join(features, " "), s.MigrationThreshold, s.Policy)
	fmt.Fprintf(&b, "%d ", len(s.PolicyArgs))
	for _, a := range s.PolicyArgs {
		b.WriteString(a + " ")
	}
	mode, check := "rw", "-"
	if s.ReadOnly {
		mode = "ro"
	}
	if s.NeedsCheck {
		check = "needs_check"
	}
	return b.String() + mode + " " + check + " "
}

// Usage tells how full the metadata and the cache are.
func (s *Status) Usage() []dm.Usage {
	if s.State != Figures {
		return []dm.Usage{{State: string(s.State)}}
	}
	return []dm.Usage{
		{What: "cache", Used: s.Resident, Total: s.Blocks, Unit: s.BlockSectors * blk.SectorSize},
		{What: "metadata", Used: s.UsedMetadata, Total: s.TotalMetadata, Unit: pdata.BlockSize},
	}
}
