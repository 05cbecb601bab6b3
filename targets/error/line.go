package errortarget

import "udm/dm"

// Line is what a table says behind "error": nothing that means anything.
type Line struct{}

// ParseLine takes any words.
func ParseLine([]string) (*Line, error) { return &Line{}, nil }

func (*Line) Target() string           { return "error" }
func (*Line) String() string           { return "" }
func (*Line) Devices() []dm.DeviceWord { return nil }
