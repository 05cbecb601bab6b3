package clone

import (
	"fmt"
	"slices"
	"strings"

	"udm/dm"
)

// Status is what dmsetup status says behind "clone": the figures, or a State that
// replaces them.
type Status struct {
	State                State
	Used, Total          uint64 // metadata blocks of 4 KiB
	RegionSectors        uint64
	Hydrated, Regions    uint64
	Hydrating            uint64 // regions that are being copied
	NoHydration          bool
	NoPassdown           bool
	Threshold, BatchSize uint32
	ReadOnly             bool // the metadata cannot be written
}

// State is the word that replaces the figures.
type State string

const (
	Figures State = ""
	Fail    State = "Fail"  // all I/O fails
	Error   State = "Error" // the metadata could not be read this time
)

// ParseStatus understands a status.
func ParseStatus(words string) (*Status, error) {
	s := &Status{State: State(words)}
	if s.State == Fail || s.State == Error {
		return s, nil
	}
	*s = Status{}
	f := strings.Split(words, " ")
	s.NoHydration, s.NoPassdown = slices.Contains(f, "no_hydration"), slices.Contains(f, "no_discard_passdown")
	s.ReadOnly = f[len(f)-1] == "ro"
	_, rest, _ := strings.Cut(words, " 4 hydration_threshold ")
	n, _ := fmt.Sscanf(words, "8 %d/%d %d %d/%d %d", &s.Used, &s.Total, &s.RegionSectors, &s.Hydrated, &s.Regions, &s.Hydrating)
	m, _ := fmt.Sscanf(rest, "%d hydration_batch_size %d", &s.Threshold, &s.BatchSize)
	if n != 6 || m != 2 || s.String() != words {
		return nil, dm.NotStatus("clone", words)
	}
	return s, nil
}

func (s *Status) String() string {
	if s.State != Figures {
		return string(s.State)
	}
	mode := "rw"
	if s.ReadOnly {
		mode = "ro"
	}
	return fmt.Sprintf("8 %d/%d %d %d/%d %d %s 4 hydration_threshold %d hydration_batch_size %d %s", s.Used, s.Total, s.RegionSectors,
		s.Hydrated, s.Regions, s.Hydrating, strings.Join(features(s.NoHydration, s.NoPassdown), " "), s.Threshold, s.BatchSize, mode)
}

// Hydrated reports whether all regions of a device whose table begins with a clone target
// are durable on the destination. The caller must keep its table from being replaced
// meanwhile.
func Hydrated(d *dm.Device) bool {
	t := d.Target(0)
	if t == nil {
		return false
	}
	c, is := t.Mapper().(*clone)
	return is && c.done.Load()
}

// Usage is the use of the metadata, and how much is hydrated.
func (s *Status) Usage() []dm.Usage {
	if s.State != Figures {
		return []dm.Usage{{State: string(s.State)}}
	}
	return []dm.Usage{
		{What: "hydrated", Used: s.Hydrated, Total: s.Regions, Unit: s.RegionSectors * 512},
		{What: "metadata", Used: s.Used, Total: s.Total, Unit: 4096},
	}
}
