package unstriped

import (
	"fmt"
	"syscall"

	"udm/dm"
)

// Line is the words of a table line after "unstriped".
type Line struct {
	Stripes uint32 // number of stripes of the device
	Chunk   uint32 // sectors
	Stripe  uint32 // the one to map, from 0 on
	dm.Place
}

// ParseLine parses the words of a table line. With an error about the offset it also
// returns the rest of the line.
func ParseLine(words []string) (*Line, error) {
	if len(words) != 5 {
		return nil, dm.Errorf(syscall.EINVAL, "Invalid number of arguments")
	}
	l := &Line{Place: dm.Place{Device: words[3]}}
	if err := l.parseShape(words); err != nil {
		return nil, err
	}
	p, err := dm.ParsePlace(words[3], words[4], "Invalid striped device offset")
	if err != nil {
		return l, err
	}
	l.Place = p
	return l, nil
}

func (l *Line) parseShape(words []string) (err error) {
	if l.Stripes, err = dm.ParseUint32(words[0]); err != nil || l.Stripes == 0 {
		return dm.Errorf(syscall.EINVAL, "Invalid stripe count")
	}
	if l.Chunk, err = dm.ParseUint32(words[1]); err != nil || l.Chunk == 0 {
		return dm.Errorf(syscall.EINVAL, "Invalid chunk_size")
	}
	if l.Stripe, err = dm.ParseUint32(words[2]); err != nil {
		return dm.Errorf(syscall.EINVAL, "Invalid stripe number")
	}
	if l.Stripe > l.Stripes && l.Stripes > 1 {
		return dm.Errorf(syscall.EINVAL, "Please provide stripe between [0, # of stripes]")
	}
	return nil
}

func (l *Line) Target() string { return "unstriped" }
func (l *Line) String() string {
	return fmt.Sprintf("%d %d %d %v", l.Stripes, l.Chunk, l.Stripe, l.Place)
}
func (l *Line) Devices() []dm.DeviceWord { return []dm.DeviceWord{l.Word(dm.Plain)} }
