package ebs

import (
	"fmt"
	"math"
	"math/bits"
	"syscall"

	"udm/dm"
)

// Line is the words of a table line after "ebs".
type Line struct {
	dm.Place
	Emulated   uint16 // sectors in a block of the mapped device
	Underlying uint16 // sectors in a block of the device below; 0: its logical blocks
}

// maxEmulated is the largest logical block that the kernel has, a page.
const maxEmulated = 4096 / 512

func invalid(reason string) error { return dm.Errorf(syscall.EINVAL, "%s", reason) }

// ParseLine parses the words of a table line. With an error about a block size it also
// returns the place.
func ParseLine(words []string) (*Line, error) {
	if len(words) != 3 && len(words) != 4 {
		return nil, invalid("Invalid argument count")
	}
	p, err := dm.ParsePlace(words[0], words[1], badOffset)
	if err != nil {
		return nil, err
	}
	l := &Line{Place: p}
	if l.Emulated, err = parseBlock(words[2], "Invalid emulated block size"); err != nil {
		return l, err
	}
	if l.Emulated > maxEmulated {
		return l, invalid("Invalid emulated block size")
	}
	if len(words) == 4 {
		l.Underlying, err = parseBlock(words[3], "Invalid underlying block size")
	}
	return l, err
}

const badOffset = "Invalid device offset sector"

// parseBlock parses a power of two. A larger number than 16 bits have wraps, as in the
// kernel.
func parseBlock(word, reason string) (uint16, error) {
	n, err := dm.ParseUint(word, math.MaxUint64)
	if err != nil || bits.OnesCount16(uint16(n)) != 1 {
		return 0, invalid(reason)
	}
	return uint16(n), nil
}

func (l *Line) Target() string { return "ebs" }

func (l *Line) String() string {
	if l.Underlying == 0 {
		return fmt.Sprintf("%v %d", l.Place, l.Emulated)
	}
	return fmt.Sprintf("%v %d %d", l.Place, l.Emulated, l.Underlying)
}

func (l *Line) Devices() []dm.DeviceWord { return []dm.DeviceWord{l.Word(dm.Plain)} }
