package thin

import (
	"fmt"
	"strings"

	"udm/dm"
	"udm/targets/thin/thinmeta"
)

// PoolLine is the parameters of a thin-pool line in a table.
type PoolLine struct {
	Metadata, Data string // devices
	BlockSectors   uint64
	LowWater       uint64 // blocks; an event is raised when fewer are free

	// The features.
	SkipZeroing    bool // skip_block_zeroing
	IgnoreDiscard  bool // ignore_discard
	NoPassdown     bool // no_discard_passdown
	ReadOnly       bool // read_only
	ErrorIfNoSpace bool // error_if_no_space
}

// ThinLine is the parameters of a thin line in a table.
type ThinLine struct {
	Pool   string // device
	ID     uint32 // below 2^24
	Origin string // device; "": none
}

// ParsePoolLine parses the parameters. If only the numbers are wrong it returns the
// rest of the line beside the error.
func ParsePoolLine(words []string) (*PoolLine, error) {
	if len(words) < 4 {
		return nil, invalid("Invalid argument count")
	}
	l := &PoolLine{Metadata: words[0], Data: words[1]}
	if l.Metadata == l.Data {
		return nil, invalid("Error setting metadata or data device")
	}
	if err := l.parseFeatures(dm.NewArgs(words[4:])); err != nil {
		return nil, err
	}
	return l, l.parseNumbers(words[2], words[3])
}

func (l *PoolLine) parseNumbers(block, lowWater string) (err error) {
	l.BlockSectors, err = dm.ParseUint64(block)
	if err != nil || l.BlockSectors < minBlock || l.BlockSectors > maxBlock || l.BlockSectors%minBlock != 0 {
		return invalid("Invalid block size")
	}
	if l.LowWater, err = dm.ParseUint64(lowWater); err != nil {
		return invalid("Invalid low water mark")
	}
	return nil
}

func (l *PoolLine) parseFeatures(args *dm.Args) error {
	if args.Len() == 0 {
		return nil
	}
	n, err := args.Group(0, 4, "Invalid number of pool feature arguments")
	if err != nil {
		return err
	}
	for range n {
		on := l.feature(strings.ToLower(args.Next()))
		if on == nil {
			return invalid("Unrecognised pool feature requested")
		}
		*on = true
	}
	return nil
}

// featureWords are the features in the order in which a table lists them.
var featureWords = []string{"skip_block_zeroing", "ignore_discard", "no_discard_passdown", "read_only", "error_if_no_space"}

// feature returns the field for a word, or nil if the word is not a feature.
func (l *PoolLine) feature(word string) *bool {
	switch word {
	case "skip_block_zeroing":
		return &l.SkipZeroing
	case "ignore_discard":
		return &l.IgnoreDiscard
	case "no_discard_passdown":
		return &l.NoPassdown
	case "read_only":
		return &l.ReadOnly
	case "error_if_no_space":
		return &l.ErrorIfNoSpace
	}
	return nil
}

// ParseThinLine parses the parameters. If only the id is wrong it returns the rest of
// the line beside the error.
func ParseThinLine(words []string) (*ThinLine, error) {
	if len(words) != 2 && len(words) != 3 {
		return nil, invalid("Invalid argument count")
	}
	l := &ThinLine{Pool: words[0]}
	if len(words) == 3 {
		l.Origin = words[2]
	}
	if l.Origin == l.Pool {
		return nil, invalid("Error setting origin device")
	}
	id, err := dm.ParseUint64(words[1])
	if err != nil || id > thinmeta.MaxID {
		return l, invalid("Invalid device id")
	}
	l.ID = uint32(id)
	return l, nil
}

func (l *PoolLine) Target() string { return "thin-pool" }
func (l *ThinLine) Target() string { return "thin" }

// String ends in a blank and has one after each feature, like the kernel's output.
func (l *PoolLine) String() string {
	var features strings.Builder
	n := 0
	for _, word := range featureWords {
		if *l.feature(word) {
			n++
			features.WriteString(word + " ")
		}
	}
	return fmt.Sprintf("%s %s %d %d %d %s", dm.QuoteWord(l.Metadata), dm.QuoteWord(l.Data), l.BlockSectors, l.LowWater, n, &features)
}

func (l *ThinLine) String() string {
	text := fmt.Sprintf("%s %d", dm.QuoteWord(l.Pool), l.ID)
	if l.Origin != "" {
		text += " " + dm.QuoteWord(l.Origin)
	}
	return text
}

func (l *PoolLine) Devices() []dm.DeviceWord {
	return []dm.DeviceWord{{Name: &l.Metadata}, {Name: &l.Data}}
}

func (l *ThinLine) Devices() []dm.DeviceWord {
	ds := []dm.DeviceWord{{Name: &l.Pool}}
	if l.Origin != "" {
		ds = append(ds, dm.DeviceWord{Name: &l.Origin})
	}
	return ds
}
