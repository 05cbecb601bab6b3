package errortarget

import "udm/dm"

// Line is the words of a table line after "error", which mean nothing.
type Line struct{}

// ParseLine accepts any words.
func ParseLine([]string) (*Line, error) { return &Line{}, nil }

func (*Line) Target() string           { return "error" }
func (*Line) String() string           { return "" }
func (*Line) Devices() []dm.DeviceWord { return nil }
