package writecache

import (
	"fmt"
	"math/bits"
	"strconv"
	"strings"
	"syscall"

	"udm/dm"
)

// Line is what a table says behind "writecache". Numbers are nil where the table has
// none.
type Line struct {
	Origin, Cache    string // devices
	BlockSize        uint32 // bytes
	StartSector      *uint64
	HighWatermark    *uint64 // percent
	LowWatermark     *uint64 // percent
	WritebackJobs    *uint64 // blocks at a time
	AutocommitBlocks *uint64
	AutocommitTime   *uint64 // milliseconds
	MaxAge           *uint64 // milliseconds
	Cleaner          bool
	MetadataOnly     bool
	PauseWriteback   *uint64 // milliseconds
}

const (
	maxOptions = 18
	minBlock   = 512
	maxBlock   = 4096
)

// option is an option with a number.
type option struct {
	name string
	to   **uint64
	wide bool // 64 bits
	most uint64
}

// numbers are the options with numbers, in the order in which a table has them: those
// before the switches, and those behind them.
func (l *Line) numbers() (before, behind []option) {
	const any32 = 1<<32 - 1
	return []option{
			{"start_sector", &l.StartSector, true, ^uint64(0)}, {"high_watermark", &l.HighWatermark, false, 100}, {"low_watermark", &l.LowWatermark, false, 100},
			{"writeback_jobs", &l.WritebackJobs, false, any32}, {"autocommit_blocks", &l.AutocommitBlocks, false, any32},
			{"autocommit_time", &l.AutocommitTime, false, 3600000}, {"max_age", &l.MaxAge, false, 86400000},
		}, []option{
			{"pause_writeback", &l.PauseWriteback, false, 60000},
		}
}

// ParseLine understands the words of a table.
func ParseLine(words []string) (*Line, error) {
	l, err := parseLine(words)
	if err != nil {
		return nil, err
	}
	return l, nil
}

// parseLine also returns as much of the line as it has understood, because the kernel
// opens the devices before it looks at the rest.
func parseLine(words []string) (*Line, error) {
	l, args := &Line{}, dm.NewArgs(words)
	switch mode := args.Next(); strings.ToLower(mode) {
	case "s":
	case "p":
		return l, dm.Because(dm.Errorf(syscall.EOPNOTSUPP, "udm knows no persistent memory; use mode s, whose format is the same"), "Persistent memory or DAX not supported on this system")
	default:
		return l, invalid("Bad arguments")
	}
	l.Origin, l.Cache = args.Next(), args.Next()
	if args.Len() == 0 {
		return l, invalid("Bad arguments")
	}
	n, err := dm.ParseUint(args.Next(), ^uint64(0))
	l.BlockSize = uint32(n)
	if err != nil || l.BlockSize < minBlock || l.BlockSize > maxBlock || bits.OnesCount32(l.BlockSize) != 1 {
		l.BlockSize = 0
		return l, invalid("Invalid block size")
	}
	return l, l.parseOptions(args)
}

func invalid(reason string) error { return dm.Errorf(syscall.EINVAL, "%s", reason) }

func (l *Line) parseOptions(args *dm.Args) error {
	n, err := args.Group(0, maxOptions, "Invalid number of feature args")
	if err != nil {
		return err
	}
	for n > 0 {
		word := strings.ToLower(args.Next())
		n--
		switch o := l.option(word); {
		case o != nil && n > 0:
			if err := o.parse(args.Next()); err != nil {
				return err
			}
			n--
		case word == "cleaner":
			l.Cleaner = true
		case word == "metadata_only":
			l.MetadataOnly = true
		default:
			return invalid("Invalid optional argument")
		}
	}
	if valueOr(l.HighWatermark, highWatermark) < valueOr(l.LowWatermark, lowWatermark) {
		return invalid("High watermark must be greater than or equal to low watermark")
	}
	return nil
}

func (l *Line) option(name string) *option {
	before, behind := l.numbers()
	for _, o := range append(before, behind...) {
		if o.name == name {
			return &o
		}
	}
	return nil
}

func (o *option) parse(word string) error {
	n, err := dm.ParseUint(word, ^uint64(0))
	if !o.wide {
		n = uint64(uint32(n))
	}
	if err != nil || n > o.most {
		return invalid("Invalid optional argument")
	}
	*o.to = &n
	return nil
}

// valueOr is a number of a line, or what holds without it.
func valueOr(n *uint64, without uint64) uint64 {
	if n == nil {
		return without
	}
	return *n
}

func (l *Line) Target() string { return "writecache" }

func (l *Line) String() string {
	before, behind := l.numbers()
	words := printOptions(nil, before)
	if l.Cleaner {
		words = append(words, "cleaner")
	}
	if l.MetadataOnly {
		words = append(words, "metadata_only")
	}
	words = printOptions(words, behind)
	head := fmt.Sprintf("s %s %s %d %d", dm.QuoteWord(l.Origin), dm.QuoteWord(l.Cache), l.BlockSize, len(words))
	return strings.Join(append([]string{head}, words...), " ")
}

func printOptions(words []string, options []option) []string {
	for _, o := range options {
		if *o.to != nil {
			words = append(words, o.name, strconv.FormatUint(**o.to, 10))
		}
	}
	return words
}

func (l *Line) Devices() []dm.DeviceWord {
	return []dm.DeviceWord{{Name: &l.Origin}, {Name: &l.Cache}}
}

// Status is what dmsetup status says behind "writecache". All but Failed are numbers of
// blocks, and those from Reads on count since the table was loaded or the message
// clear_stats.
type Status struct {
	Failed             bool // writes and flushes fail
	Blocks, Free       uint64
	Writeback          uint64 // being written back
	Reads, ReadHits    uint64
	Writes             uint64
	HitsUncommitted    uint64 // writes of blocks that were written since the last commit
	HitsCommitted      uint64
	Around             uint64 // writes that went to the origin
	Allocated          uint64
	BlockedOnFreelist  uint64 // writes that waited for a free block
	Flushes, Discarded uint64 // Flushes: of the device
}

func (s *Status) fields() []*uint64 {
	return []*uint64{&s.Blocks, &s.Free, &s.Writeback, &s.Reads, &s.ReadHits, &s.Writes, &s.HitsUncommitted, &s.HitsCommitted,
		&s.Around, &s.Allocated, &s.BlockedOnFreelist, &s.Flushes, &s.Discarded}
}

// ParseStatus understands a status.
func ParseStatus(words string) (*Status, error) {
	s := &Status{}
	failed, rest, _ := strings.Cut(words, " ")
	s.Failed = failed == "1"
	texts := strings.Split(rest, " ")
	for i, to := range s.fields() {
		if i < len(texts) {
			*to, _ = strconv.ParseUint(texts[i], 10, 64)
		}
	}
	if s.String() != words {
		return nil, dm.NotStatus("writecache", words)
	}
	return s, nil
}

func (s *Status) String() string {
	text := "0"
	if s.Failed {
		text = "1"
	}
	for _, n := range s.fields() {
		text += " " + strconv.FormatUint(*n, 10)
	}
	return text
}

// Usage is how much of the cache is in use.
func (s *Status) Usage() []dm.Usage {
	return []dm.Usage{{What: "cache", Used: s.Blocks - min(s.Free, s.Blocks), Total: s.Blocks}}
}
