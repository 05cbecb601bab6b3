package dust

import (
	"fmt"
	"strings"
	"syscall"

	"udm/blk"
	"udm/dm"
)

// Line is the words of a table line after "dust".
type Line struct {
	dm.Place
	Block uint32 // bytes in a block
}

const maxBlock = 1 << 30 // bytes

// ParseLine parses the words of a table line. With an error about the sector it also
// returns the rest of the line.
func ParseLine(words []string) (*Line, error) {
	if len(words) != 3 {
		return nil, dm.Errorf(syscall.EINVAL, "Invalid argument count")
	}
	n, err := dm.ParseUint32(words[2])
	switch {
	case err != nil || n == 0:
		return nil, dm.Errorf(syscall.EINVAL, "Invalid block size parameter")
	case n < blk.SectorSize:
		return nil, dm.Errorf(syscall.EINVAL, "Block size must be at least 512")
	case n&(n-1) != 0:
		return nil, dm.Errorf(syscall.EINVAL, "Block size must be a power of 2")
	case n > maxBlock:
		return nil, dm.Errorf(syscall.EINVAL, "Block size is too large")
	}
	p, err := dm.ParsePlace(words[0], words[1], "Invalid device offset sector")
	return &Line{p, n}, err
}

func (l *Line) Target() string           { return "dust" }
func (l *Line) String() string           { return fmt.Sprintf("%v %d", l.Place, l.Block) }
func (l *Line) Devices() []dm.DeviceWord { return []dm.DeviceWord{l.Word(dm.Plain)} }

// Status is the target's words in dmsetup status.
type Status struct {
	Device  string
	Enabled bool // bad blocks fail
	Quiet   bool
}

// ParseStatus parses a status.
func ParseStatus(status string) (*Status, error) {
	device, rest, _ := strings.Cut(status, " ")
	s := &Status{device, strings.HasPrefix(rest, "fail"), strings.HasSuffix(rest, "quiet")}
	if s.String() != status {
		return nil, dm.NotStatus("dust", status)
	}
	return s, nil
}

func (s *Status) String() string {
	mode, voice := "bypass", "verbose"
	if s.Enabled {
		mode = "fail_read_on_bad_block"
	}
	if s.Quiet {
		voice = "quiet"
	}
	return s.Device + " " + mode + " " + voice
}

// Usage is empty: the target has no space of its own.
func (s *Status) Usage() []dm.Usage { return nil }
