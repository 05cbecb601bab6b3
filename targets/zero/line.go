package zero

import (
	"syscall"

	"udm/dm"
)

// Line is the words of a table line after "zero": there are none.
type Line struct{}

// ParseLine refuses any words.
func ParseLine(words []string) (*Line, error) {
	if len(words) != 0 {
		return nil, dm.Errorf(syscall.EINVAL, "No arguments required")
	}
	return &Line{}, nil
}

func (*Line) Target() string           { return "zero" }
func (*Line) String() string           { return "" }
func (*Line) Devices() []dm.DeviceWord { return nil }
