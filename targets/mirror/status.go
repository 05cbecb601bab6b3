package mirror

import (
	"fmt"
	"strconv"
	"strings"

	"udm/dm"
)

// Status is what dmsetup status says behind "mirror".
type Status struct {
	Legs            []Leg
	Synced, Regions uint64
	Log             string // device of the log; "": it is in memory
	LogHealth       byte   // A: alive, F: a flush of it failed, D: a write or read; 0: no device
}

// Leg is a device of a mirror.
type Leg struct {
	Device string
	Health byte // A: alive; it failed F: a flush, D: a write, S: recovery, R: a read
}

// ParseStatus understands a status.
func ParseStatus(status string) (*Status, error) {
	s := &Status{}
	if !s.parse(strings.Split(status, " ")) || s.String() != status {
		return nil, dm.NotStatus("mirror", status)
	}
	return s, nil
}

func (s *Status) parse(words []string) bool {
	n, err := strconv.Atoi(words[0])
	if err != nil || n < minLegs || n > maxLegs || len(words) < n+6 || len(words[n+3]) != n {
		return false
	}
	for i, device := range words[1 : n+1] {
		s.Legs = append(s.Legs, Leg{device, words[n+3][i]})
	}
	if _, err := fmt.Sscanf(words[n+1], "%d/%d", &s.Synced, &s.Regions); err != nil {
		return false
	}
	if log := words[n+4:]; len(log) == 4 && len(log[3]) == 1 && log[2] != "" {
		s.Log, s.LogHealth = log[2], log[3][0]
	}
	return true
}

func (s *Status) String() string {
	var devices, health strings.Builder
	for _, l := range s.Legs {
		devices.WriteString(l.Device + " ")
		health.WriteByte(l.Health)
	}
	text := fmt.Sprintf("%d %s%d/%d 1 %s ", len(s.Legs), &devices, s.Synced, s.Regions, &health)
	if s.Log == "" {
		return text + "1 core"
	}
	return text + "3 disk " + s.Log + " " + string(s.LogHealth)
}

// Usage is empty: the target has no space of its own.
func (s *Status) Usage() []dm.Usage { return nil }
