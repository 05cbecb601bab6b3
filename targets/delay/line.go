package delay

import (
	"fmt"
	"math"
	"strings"
	"syscall"

	"udm/dm"
)

// Line is the words of a table line after "delay": one to three groups.
type Line struct{ Groups []Group }

// Group is the device and the delay of some of the I/O.
type Group struct {
	dm.Place
	Milliseconds uint32
}

// ParseLine parses the words of a table line. With an error about a group it also
// returns the groups before that one.
func ParseLine(words []string) (*Line, error) {
	if len(words) != 3 && len(words) != 6 && len(words) != 9 {
		return nil, dm.Errorf(syscall.EINVAL, "Requires exactly 3, 6 or 9 arguments")
	}
	l := &Line{}
	for ; len(words) > 0; words = words[3:] {
		g, err := parseGroup(words)
		if err != nil {
			return l, err
		}
		l.Groups = append(l.Groups, g)
	}
	return l, nil
}

func parseGroup(words []string) (Group, error) {
	p, err := dm.ParsePlace(words[0], words[1], "Invalid device sector")
	if err != nil {
		return Group{}, err
	}
	ms, err := dm.ParseUint(words[2], math.MaxUint64)
	if err != nil {
		return Group{}, dm.Because(err, "Invalid delay")
	}
	return Group{p, uint32(ms)}, nil // a larger number wraps in the kernel, too
}

func (l *Line) Target() string { return "delay" }

func (l *Line) String() string {
	var words []string
	for _, g := range l.Groups {
		words = append(words, fmt.Sprintf("%v %d", g.Place, g.Milliseconds))
	}
	return strings.Join(words, " ")
}

func (l *Line) Devices() (ds []dm.DeviceWord) {
	for i := range l.Groups {
		ds = append(ds, l.Groups[i].Word(dm.Plain))
	}
	return ds
}

// Status is the target's words in dmsetup status: how many bios of each kind wait.
type Status struct{ Reads, Writes, Flushes int }

// ParseStatus parses a status.
func ParseStatus(status string) (*Status, error) {
	var s Status
	_, err := fmt.Sscanf(status, "%d %d %d", &s.Reads, &s.Writes, &s.Flushes)
	if err != nil || s.String() != status {
		return nil, dm.NotStatus("delay", status)
	}
	return &s, nil
}

func (s *Status) String() string { return fmt.Sprintf("%d %d %d", s.Reads, s.Writes, s.Flushes) }

// Usage is empty: the target has no space of its own.
func (s *Status) Usage() []dm.Usage { return nil }
