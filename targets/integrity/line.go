package integrity

import (
	"fmt"
	"hash"
	"math"
	"math/bits"
	"strconv"
	"strings"
	"syscall"

	"udm/blk"
	"udm/dm"
)

// Line holds the arguments of a table line. It may contain a key. Numbers that a table
// omits have the values in the superblock, or defaults.
type Line struct {
	dm.Place
	TagSize int    // bytes; 0 for the size of the hash
	Mode    string // J, B, D or R
	Hash    string // ALGORITHM or hmac(ALGORITHM); "" if the user of the device supplies the tags
	Key     string // of the hash, in hexadecimal

	JournalMAC   Algorithm // such as hmac(sha256)
	JournalCrypt Algorithm // ctr(aes) or cbc(aes)

	MetaDevice        string // of superblock, journal and tags; "" if they are on DEVICE
	BlockSize         int    // bytes
	Recalculate       bool
	ResetRecalculate  bool
	AllowDiscards     bool
	FixPadding        bool
	FixHMAC           bool
	LegacyRecalculate bool
	JournalSectors    uint32
	InterleaveSectors uint32
	BufferSectors     uint32
	Watermark         uint32 // percent
	CommitTime        uint32 // milliseconds

	SectorsPerBit       uint64 // of the bitmap; rounded down to a power of 2
	BitmapFlushInterval uint32 // milliseconds
}

// Algorithm is an algorithm with its key in hexadecimal. The zero value is none.
type Algorithm struct{ Name, Key string }

func (a Algorithm) String() string {
	if a.Key == "" {
		return a.Name
	}
	return a.Name + ":" + a.Key
}

const (
	maxFeatures = 18
	maxTag      = 448
)

// NewLine returns a line of mode J with the defaults. The caller sets TagSize or Hash.
func NewLine(p dm.Place) *Line {
	return &Line{Place: p, Mode: "J", BlockSize: blk.SectorSize, InterleaveSectors: 1 << 15, BufferSectors: 1 << 7, Watermark: 50, CommitTime: 10000, SectorsPerBit: 1 << 15, BitmapFlushInterval: 10000}
}

// ParseLine parses the arguments of a table line.
func ParseLine(words []string) (*Line, error) {
	l, err := parseLine(words)
	if err != nil {
		return nil, err
	}
	return l, nil
}

// parseLine also returns the line with an error that check finds, because the kernel opens
// the devices before it detects such an error.
func parseLine(words []string) (*Line, error) {
	if len(words) <= 4 {
		return nil, dm.Errorf(syscall.EINVAL, "Invalid argument count")
	}
	l := NewLine(dm.Place{})
	l.Mode = words[3]
	var err error
	if l.Place, err = dm.ParsePlace(words[0], words[1], "Invalid starting offset"); err != nil {
		return nil, dm.Errorf(syscall.EINVAL, "Invalid starting offset")
	}
	if words[2] != "-" {
		n, ok := number(words[2])
		if !ok || n == 0 || n > math.MaxInt32 {
			return nil, dm.Errorf(syscall.EINVAL, "Invalid tag size")
		}
		l.TagSize = int(n)
	}
	if err := checkMode(l.Mode); err != nil {
		return nil, err
	}
	args := dm.NewArgs(words[4:])
	n, err := args.Group(0, maxFeatures, "Invalid number of feature args")
	if err != nil {
		return nil, err
	}
	for range n {
		if err := l.parseFeature(args.Next()); err != nil {
			return nil, err
		}
	}
	return l, l.check()
}

func checkMode(mode string) error {
	switch mode {
	case "J", "B", "D", "R":
		return nil
	}
	return dm.Errorf(syscall.EINVAL, "Invalid mode (expecting J, B, D, R)")
}

// number parses a number and truncates it to 32 bits, as the kernel does.
func number(word string) (uint32, bool) {
	n, err := dm.ParseUint(word, math.MaxUint64)
	return uint32(n), err == nil
}

// numbers returns the features with a number, by name.
func (l *Line) numbers() map[string]*uint32 {
	return map[string]*uint32{"journal_sectors": &l.JournalSectors, "interleave_sectors": &l.InterleaveSectors, "buffer_sectors": &l.BufferSectors,
		"journal_watermark": &l.Watermark, "commit_time": &l.CommitTime, "bitmap_flush_interval": &l.BitmapFlushInterval}
}

// switches returns the features without an argument, by name.
func (l *Line) switches() map[string]*bool {
	return map[string]*bool{"recalculate": &l.Recalculate, "reset_recalculate": &l.ResetRecalculate, "allow_discards": &l.AllowDiscards,
		"fix_padding": &l.FixPadding, "fix_hmac": &l.FixHMAC, "legacy_recalculate": &l.LegacyRecalculate}
}

func (l *Line) parseFeature(word string) error {
	if on := l.switches()[word]; on != nil {
		*on = true
		return nil
	}
	name, value, _ := strings.Cut(word, ":")
	if to := l.numbers()[name]; to != nil {
		n, ok := number(value)
		if !ok || name == "journal_watermark" && n > 100 {
			return dm.Errorf(syscall.EINVAL, "Invalid argument")
		}
		*to = n
		if name == "journal_sectors" {
			*to = max(1, n)
		}
		return nil
	}
	return l.parseWord(name, value)
}

func (l *Line) parseWord(name, value string) error {
	switch name {
	case "block_size":
		n, ok := number(value)
		if !ok || n < blk.SectorSize || n > 4096 || n&(n-1) != 0 {
			return dm.Errorf(syscall.EINVAL, "Invalid block_size argument")
		}
		l.BlockSize = int(n)
	case "meta_device":
		l.MetaDevice = value
	case "internal_hash":
		a, err := parseKeyed(name, value)
		if err != nil {
			return err
		}
		l.Hash, l.Key = a.Name, a.Key
	case "journal_mac":
		var err error
		if l.JournalMAC, err = parseKeyed(name, value); err != nil {
			return err
		}
	case "journal_crypt":
		var err error
		if l.JournalCrypt, err = parseKeyed(name, value); err != nil {
			return err
		}
	case "sectors_per_bit":
		n, err := dm.ParseUint(value, math.MaxUint64)
		if err != nil {
			return dm.Errorf(syscall.EINVAL, "Invalid argument")
		}
		l.SectorsPerBit = max(1, n)
	default:
		return dm.Errorf(syscall.EINVAL, "Invalid argument")
	}
	return nil
}

// check does the checks that the kernel does after parsing all words.
func (l *Line) check() error {
	h, err := l.newHash()
	if err != nil {
		return err
	}
	if l.JournalMAC.Name != "" {
		if _, err := newHash("journal mac", l.JournalMAC.Name, l.JournalMAC.key()); err != nil {
			return err
		}
	}
	if l.TagSize == 0 && h != nil {
		l.TagSize = h().Size()
	}
	space := sectorSpace
	if l.JournalMAC.Name != "" {
		space -= macPart
	}
	switch {
	case l.TagSize == 0:
		return dm.Errorf(syscall.EINVAL, "Unknown tag size")
	case l.TagSize > maxTag || 8+l.BlockSize/64+l.TagSize > space:
		return dm.Errorf(syscall.EINVAL, "Too big tag size")
	case l.Mode == "B" && h == nil:
		return dm.Errorf(syscall.EINVAL, "Bitmap mode can be only used with internal hash")
	case l.AllowDiscards && h == nil:
		return dm.Errorf(syscall.EINVAL, "Discard can be only used with internal hash")
	}
	l.BufferSectors = 1 << min(bits.Len32(max(1, l.BufferSectors))-1, 31-blk.SectorShift)
	return nil
}

// newHash returns the constructor of the internal hash, or nil if there is none.
func (l *Line) newHash() (func() hash.Hash, error) {
	if l.Hash == "" {
		return nil, nil
	}
	return newHash("internal hash", l.Hash, Algorithm{l.Hash, l.Key}.key())
}

func (l *Line) Target() string { return "integrity" }

// String returns the arguments of the table line, with the key.
func (l *Line) String() string {
	var words []string
	add := func(on bool, word string) {
		if on {
			words = append(words, word)
		}
	}
	counted := func(name string, n uint32) { words = append(words, name+":"+strconv.FormatUint(uint64(n), 10)) }
	add(l.MetaDevice != "", "meta_device:"+dm.QuoteWord(l.MetaDevice))
	add(l.BlockSize != blk.SectorSize, fmt.Sprintf("block_size:%d", l.BlockSize))
	add(l.Recalculate, "recalculate")
	add(l.ResetRecalculate, "reset_recalculate")
	add(l.AllowDiscards, "allow_discards")
	if l.JournalSectors > 0 {
		counted("journal_sectors", l.JournalSectors)
	}
	counted("interleave_sectors", l.InterleaveSectors)
	counted("buffer_sectors", l.BufferSectors)
	if l.Mode == "J" {
		counted("journal_watermark", l.Watermark)
		counted("commit_time", l.CommitTime)
	}
	if l.Mode == "B" {
		words = append(words, "sectors_per_bit:"+strconv.FormatUint(l.SectorsPerBit, 10))
		counted("bitmap_flush_interval", l.BitmapFlushInterval)
	}
	add(l.FixPadding, "fix_padding")
	add(l.FixHMAC, "fix_hmac")
	add(l.LegacyRecalculate, "legacy_recalculate")
	for _, a := range []struct {
		feature   string
		algorithm Algorithm
	}{{"internal_hash", Algorithm{l.Hash, l.Key}}, {"journal_crypt", l.JournalCrypt}, {"journal_mac", l.JournalMAC}} {
		add(a.algorithm.Name != "", dm.QuoteWord(a.feature+":"+a.algorithm.String()))
	}
	return fmt.Sprintf("%v %d %s %d %s", l.Place, l.TagSize, l.Mode, len(words), strings.Join(words, " "))
}

// WithoutKey implements [dm.KeyedLine].
func (l *Line) WithoutKey() (words string, keyed bool) {
	hidden := *l
	for _, key := range []*string{&hidden.Key, &hidden.JournalMAC.Key, &hidden.JournalCrypt.Key} {
		keyed = keyed || *key != ""
		*key = strings.Repeat("0", len(*key))
	}
	return hidden.String(), keyed
}

func (l *Line) Devices() []dm.DeviceWord {
	words := []dm.DeviceWord{l.Word(dm.Plain)}
	if l.MetaDevice != "" {
		words = append(words, dm.DeviceWord{Name: &l.MetaDevice})
	}
	return words
}

// Status is the target's status line.
type Status struct {
	Mismatches    uint64
	Provided      uint64 // sectors
	Recalculating bool
	Recalculated  uint64 // up to this sector
}

// ParseStatus parses a status line.
func ParseStatus(words string) (*Status, error) {
	s := &Status{}
	f := strings.Split(words, " ")
	if len(f) != 3 {
		return nil, dm.NotStatus("integrity", words)
	}
	var err error
	s.Mismatches, err = strconv.ParseUint(f[0], 10, 64)
	if err == nil {
		s.Provided, err = strconv.ParseUint(f[1], 10, 64)
	}
	if s.Recalculating = f[2] != "-"; s.Recalculating && err == nil {
		s.Recalculated, err = strconv.ParseUint(f[2], 10, 64)
	}
	if err != nil || s.String() != words {
		return nil, dm.NotStatus("integrity", words)
	}
	return s, nil
}

func (s *Status) String() string {
	if s.Recalculating {
		return fmt.Sprintf("%d %d %d", s.Mismatches, s.Provided, s.Recalculated)
	}
	return fmt.Sprintf("%d %d -", s.Mismatches, s.Provided)
}

// Usage returns nil: the target has no space that can run out.
func (s *Status) Usage() []dm.Usage { return nil }
