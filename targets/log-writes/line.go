package logwrites

import (
	"fmt"
	"strings"
	"syscall"

	"udm/dm"
)

// Line is the words of a table line after "log-writes".
type Line struct{ Device, Log string }

// ParseLine parses the words of a table line. Words after the two devices mean nothing.
func ParseLine(words []string) (*Line, error) {
	if len(words) < 2 {
		return nil, dm.Errorf(syscall.EINVAL, "Invalid argument count")
	}
	return &Line{words[0], words[1]}, nil
}

func (l *Line) Target() string { return "log-writes" }
func (l *Line) String() string { return dm.QuoteWord(l.Device) + " " + dm.QuoteWord(l.Log) }
func (l *Line) Devices() []dm.DeviceWord {
	return []dm.DeviceWord{{Name: &l.Device}, {Name: &l.Log}}
}

// Status is the target's words in dmsetup status.
type Status struct {
	Entries  uint64 // number of entries that have been logged
	Sector   uint64 // the last sector of the log that is in use
	Disabled bool   // the log has stopped
}

const disabled = " logging_disabled"

// ParseStatus parses a status.
func ParseStatus(status string) (*Status, error) {
	var s Status
	figures, found := strings.CutSuffix(status, disabled)
	s.Disabled = found
	if _, err := fmt.Sscanf(figures, "%d %d", &s.Entries, &s.Sector); err != nil || s.String() != status {
		return nil, dm.NotStatus("log-writes", status)
	}
	return &s, nil
}

func (s *Status) String() string {
	text := fmt.Sprintf("%d %d", s.Entries, s.Sector)
	if s.Disabled {
		text += disabled
	}
	return text
}

// Usage is empty: the status does not tell how large the log may become.
func (s *Status) Usage() []dm.Usage { return nil }
