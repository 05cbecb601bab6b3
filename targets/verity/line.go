package verity

import (
	"encoding/hex"
	"fmt"
	"math"
	"strings"
	"syscall"

	"udm/blk"
	"udm/dm"
	"udm/targets/verity/hashtree"
	"udm/targets/verity/reedsolomon"
)

// Mode is the reaction to a corrupted block that cannot be corrected.
type Mode uint8

// All modes but Ignore fail the read.
const (
	Fail    Mode = iota
	Ignore       // return the data as they are
	Restart      // the kernel restarts the machine; udm does not
	Panic        // the kernel panics; udm does not
)

var modeWords = [...]string{"", "ignore_corruption", "restart_on_corruption", "panic_on_corruption"}

// Line holds the arguments of a table line.
type Line struct {
	Version    uint
	Data, Hash string // devices
	DataBlock  int    // bytes
	HashBlock  int    // bytes
	DataBlocks uint64
	HashStart  uint64 // hash blocks
	Algorithm  string
	Root       string // in hexadecimal
	Salt       string // in hexadecimal, or "-" for none

	Mode             Mode
	IgnoreZeroBlocks bool
	CheckAtMostOnce  bool
	Tasklet          bool // try_verify_in_tasklet
	FEC              FEC
}

// FEC describes the parity for forward error correction.
type FEC struct {
	Device string // "" without parity
	Blocks uint64 // covered: data blocks, hash blocks, and the blocks that follow them
	Start  uint64 // of the parity on Device, in blocks
	Roots  int    // bytes of parity in a codeword of 255
}

const noSalt = "-"

// ParseLine parses the arguments of a table line.
func ParseLine(words []string) (*Line, error) {
	l, bad := parseLine(words)
	if bad != nil {
		return nil, bad.err
	}
	return l, nil
}

// lineError is an error in a line, with the number of devices that the kernel opens
// before it detects that error: failing to open one of them is reported instead.
type lineError struct {
	err     error
	devices int
}

func invalid(devices int, reason string) *lineError {
	return &lineError{dm.Errorf(syscall.EINVAL, "%s", reason), devices}
}

// parseLine also returns the arguments parsed so far if there is an error.
func parseLine(words []string) (*Line, *lineError) {
	if len(words) < 10 {
		return nil, invalid(0, "Not enough arguments")
	}
	l := &Line{Data: words[1], Hash: words[2]}
	if m := l.parseFeatures(words[10:], true); m != nil {
		return l, m
	}
	version, err := parseUint32(words[0], 1)
	if err != nil {
		return l, invalid(0, "Invalid version")
	}
	l.Version = uint(version)
	if l.DataBlock, err = parseBlock(words[3], pageSize); err != nil {
		return l, invalid(2, "Invalid data device block size")
	}
	if l.HashBlock, err = parseBlock(words[4], math.MaxInt32); err != nil {
		return l, invalid(2, "Invalid hash device block size")
	}
	if l.DataBlocks, err = parseBlocks(words[5], l.DataBlock); err != nil {
		return l, invalid(2, "Invalid data blocks")
	}
	return l.parseTree(words)
}

// parseTree parses the arguments from the tree's offset on, in the kernel's order.
func (l *Line) parseTree(words []string) (*Line, *lineError) {
	var err error
	if l.HashStart, err = parseBlocks(words[6], l.HashBlock); err != nil {
		return l, invalid(2, "Invalid hash start")
	}
	l.Algorithm, l.Root, l.Salt = words[7], strings.ToLower(words[8]), strings.ToLower(words[9])
	t, err := hashtree.New(hashtree.Shape{HashBlock: l.HashBlock, Algorithm: l.Algorithm})
	if err != nil {
		return l, &lineError{err, 2}
	}
	if root, err := hex.DecodeString(l.Root); err != nil || len(root) != t.DigestSize {
		return l, invalid(2, "Invalid root digest")
	}
	if l.Salt != noSalt {
		if _, err := hex.DecodeString(l.Salt); err != nil {
			return l, invalid(2, "Invalid salt")
		}
	}
	if m := l.parseFeatures(words[10:], false); m != nil {
		return l, m
	}
	if _, err := l.tree(); err != nil {
		return l, &lineError{err, 2}
	}
	return l, l.checkFEC()
}

// tree returns the tree that the line describes.
func (l *Line) tree() (*hashtree.Tree, error) {
	salt, _ := hex.DecodeString(strings.TrimPrefix(l.Salt, noSalt)) // validated by parseTree
	return hashtree.New(hashtree.Shape{Version: int(l.Version), DataBlock: l.DataBlock, HashBlock: l.HashBlock, DataBlocks: l.DataBlocks,
		Start: l.HashStart, Algorithm: l.Algorithm, Salt: salt})
}

const pageSize = 4096

func parseUint32(word string, most uint64) (uint64, error) {
	n, err := dm.ParseUint(word, math.MaxUint64)
	if n = uint64(uint32(n)); n > most {
		err = syscall.EINVAL
	}
	return n, err
}

func parseBlock(word string, most uint64) (int, error) {
	n, err := parseUint32(word, most)
	if err != nil || n < blk.SectorSize || n&(n-1) != 0 {
		return 0, syscall.EINVAL
	}
	return int(n), nil
}

// parseBlocks parses a number of blocks of size bytes that does not overflow in sectors.
func parseBlocks(word string, size int) (uint64, error) {
	n, err := dm.ParseUint(word, math.MaxUint64)
	if err != nil || n > math.MaxUint64/uint64(size/blk.SectorSize) {
		return 0, syscall.EINVAL
	}
	return n, nil
}

// maxFeatures is the kernel's limit for the words that follow the count.
const maxFeatures = 14

// parseFeatures parses the features in two passes as the kernel does: the first, before
// all other arguments, only for try_verify_in_tasklet.
func (l *Line) parseFeatures(words []string, first bool) *lineError {
	if len(words) == 0 {
		return nil
	}
	devices := 2
	if first {
		devices = 0
	}
	args := dm.NewArgs(words)
	n, err := args.Group(0, maxFeatures, "Invalid number of feature args")
	if err != nil {
		return &lineError{err, devices}
	}
	feature := dm.NewArgs(words[1 : 1+n])
	for feature.Len() > 0 {
		if m := l.parseFeature(feature, first); m != nil {
			return m
		}
	}
	return nil
}

func (l *Line) parseFeature(args *dm.Args, first bool) *lineError {
	word := strings.ToLower(args.Next())
	switch {
	case word == "try_verify_in_tasklet":
		l.Tasklet = true
	case first:
	case word == "ignore_zero_blocks":
		l.IgnoreZeroBlocks = true
	case word == "check_at_most_once":
		if l.DataBlocks > math.MaxInt32 {
			return &lineError{dm.Errorf(syscall.E2BIG, "device too large to use check_at_most_once"), 2}
		}
		l.CheckAtMostOnce = true
	case word == "root_hash_sig_key_desc":
		return &lineError{dm.Because(dm.Errorf(syscall.EINVAL, "udm has no keyring with certificates; leave out the feature and check the signature of the root hash beforehand"), "Root hash verification failed"), 2}
	case l.parseMode(word):
		if l.Mode == conflicting {
			return invalid(2, "Conflicting error handling parameters")
		}
	default:
		return l.parseFECWord(word, args)
	}
	return nil
}

const conflicting = Mode(len(modeWords))

// parseMode reports whether a word names a mode.
func (l *Line) parseMode(word string) bool {
	for m := Ignore; m < conflicting; m++ {
		if word == modeWords[m] {
			if l.Mode != Fail {
				m = conflicting
			}
			l.Mode = m
			return true
		}
	}
	return false
}

func (l *Line) parseFECWord(word string, args *dm.Args) *lineError {
	switch word {
	case "use_fec_from_device", "fec_blocks", "fec_start", "fec_roots":
	default:
		return invalid(2, "Unrecognized verity feature request")
	}
	if args.Len() == 0 {
		return invalid(2, "FEC feature arguments require a value")
	}
	value := args.Next()
	var err error
	switch word {
	case "use_fec_from_device":
		l.FEC.Device = value
	case "fec_blocks":
		l.FEC.Blocks, err = parseBlocks(value, l.DataBlock)
	case "fec_start":
		l.FEC.Start, err = parseBlocks(value, l.DataBlock)
	case "fec_roots":
		var n uint64
		n, err = dm.ParseUint(value, math.MaxUint64)
		if n = uint64(uint8(n)); n < 2 || n > reedsolomon.MaxRoots { // the kernel reads eight bits
			err = syscall.EINVAL
		}
		l.FEC.Roots = int(n)
	}
	if err != nil {
		return invalid(2, "Invalid "+word)
	}
	return nil
}

// checkFEC checks the parity's arguments as far as that is possible without devices.
func (l *Line) checkFEC() *lineError {
	f := &l.FEC
	if f.Device == "" {
		*f = FEC{}
		return nil
	}
	t, _ := l.tree()
	switch {
	case l.DataBlock != l.HashBlock:
		return invalid(3, "Block sizes must match to use FEC")
	case f.Roots == 0:
		return invalid(3, "Missing fec_roots")
	case f.Blocks == 0:
		return invalid(3, "Missing fec_blocks")
	case f.Blocks < l.DataBlocks+t.End()-l.HashStart:
		return invalid(3, "Invalid fec_blocks")
	}
	return nil
}

func (l *Line) Target() string { return "verity" }

func (l *Line) String() string {
	text := fmt.Sprintf("%d %s %s %d %d %d %d %s %s %s", l.Version, dm.QuoteWord(l.Data), dm.QuoteWord(l.Hash), l.DataBlock, l.HashBlock,
		l.DataBlocks, l.HashStart, l.Algorithm, l.Root, l.Salt)
	var words []string
	for _, f := range []struct {
		on   bool
		word string
	}{
		{l.Mode != Fail, modeWords[l.Mode]}, {l.IgnoreZeroBlocks, "ignore_zero_blocks"},
		{l.CheckAtMostOnce, "check_at_most_once"}, {l.Tasklet, "try_verify_in_tasklet"},
	} {
		if f.on {
			words = append(words, f.word)
		}
	}
	n := len(words)
	if f := l.FEC; f.Device != "" {
		n += 8
		words = append(words, fmt.Sprintf("use_fec_from_device %s fec_blocks %d fec_start %d fec_roots %d", dm.QuoteWord(f.Device), f.Blocks, f.Start, f.Roots))
	}
	if n > 0 {
		text += fmt.Sprintf(" %d %s", n, strings.Join(words, " "))
	}
	return text
}

func (l *Line) Devices() []dm.DeviceWord {
	words := []dm.DeviceWord{{Name: &l.Data}, {Name: &l.Hash}}
	if l.FEC.Device != "" {
		words = append(words, dm.DeviceWord{Name: &l.FEC.Device})
	}
	return words
}

// Status is the target's status line.
type Status struct {
	Corrupted bool // a corrupted block was read since the table was loaded
}

// ParseStatus parses a status line.
func ParseStatus(words string) (*Status, error) {
	if words != "V" && words != "C" {
		return nil, dm.NotStatus("verity", words)
	}
	return &Status{words == "C"}, nil
}

func (s *Status) String() string {
	if s.Corrupted {
		return "C"
	}
	return "V"
}

// Usage returns nil: the target has no space that can run out.
func (s *Status) Usage() []dm.Usage { return nil }
