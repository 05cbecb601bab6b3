package linear

import (
	"syscall"

	"udm/dm"
)

// Line is the words of a table line after "linear": the place of the target's first
// sector.
type Line struct{ dm.Place }

// ParseLine parses the words of a table line.
func ParseLine(words []string) (*Line, error) {
	if len(words) != 2 {
		return nil, dm.Errorf(syscall.EINVAL, "Invalid argument count")
	}
	p, err := dm.ParsePlace(words[0], words[1], "Invalid device sector")
	if err != nil {
		return nil, err
	}
	return &Line{p}, nil
}

func (l *Line) Target() string           { return "linear" }
func (l *Line) Devices() []dm.DeviceWord { return []dm.DeviceWord{l.Word(dm.Plain)} }
