package main

import (
	"fmt"
	"strconv"
	"strings"

	"udm/blk"
	"udm/ctl"
	"udm/dm"
	"udm/targets/all"
)

// fullness is the use of a part of a device.
type fullness struct {
	What  string `json:"what"`
	Used  uint64 `json:"used"`
	Total uint64 `json:"total"`
	Unit  uint64 `json:"unitBytes,omitempty"` // unit of both in bytes
	// State is why there are no numbers: Invalid, Overflow, Fail.
	State string `json:"state,omitempty"`
}

// share is Used/Total, from 0 to 1.
func (f fullness) share() float64 {
	if f.Total == 0 {
		return 0
	}
	return float64(f.Used) / float64(f.Total)
}

func (f fullness) String() string { return strings.TrimSpace(f.What + " " + f.amount()) }

// amount is a bar with sizes, or the state.
func (f fullness) amount() string {
	switch {
	case f.State != "":
		return f.State
	case f.Unit == 0 || f.Total == 0:
		return bar(f.Used, f.Total)
	}
	return fmt.Sprintf("%s %s of %s", bar(f.Used, f.Total), formatBytes(f.Used*f.Unit), formatBytes(f.Total*f.Unit))
}

// fullnessOf returns the use that a target's status reports. Units that the status
// does not name are the blocks of its table.
func fullnessOf(l ctl.Line, table []ctl.Line) (fs []fullness) {
	s := statusOf(l)
	if s == nil {
		return nil
	}
	for _, u := range s.Usage() {
		f := fullness{What: u.What, Used: u.Used, Total: u.Total, Unit: u.Unit, State: u.State}
		if f.State == "" && f.Total == 0 {
			f.Total = l.Length
		}
		if f.Unit == 0 {
			f.Unit = poolBlock(l, table)
		}
		fs = append(fs, f)
	}
	return fs
}

// poolBlock is the block size in bytes of the pool that a status belongs to; 0 if
// that is not a pool or the table is unknown.
func poolBlock(status ctl.Line, table []ctl.Line) uint64 {
	for _, l := range table {
		words := strings.Fields(l.Params)
		if l.Target == "thin-pool" && l.Start == status.Start && len(words) > 2 {
			sectors, _ := strconv.ParseUint(words[2], 10, 32)
			return sectors * blk.SectorSize
		}
	}
	return 0
}

// full returns the use of a device, over all its targets.
func full(d ctl.Device) (fs []fullness) {
	for _, l := range d.Status {
		fs = append(fs, fullnessOf(l, d.Table)...)
	}
	return fs
}

// bars formats the use as one cell of a table.
func bars(d ctl.Device) string {
	var s []string
	for _, f := range full(d) {
		s = append(s, f.String())
	}
	return strings.Join(s, ", ")
}

// described is a device in JSON output.
type described struct {
	ctl.Device
	Full []fullness  `json:"full,omitempty"`
	Hits []cacheHits `json:"hits,omitempty"`
}

func withFullness(ds []ctl.Device) []described {
	out := make([]described, 0, len(ds))
	for _, d := range ds {
		out = append(out, described{d, full(d), hitsOf(d)})
	}
	return out
}

// statusOf parses a status; nil if the target has no parser or the status cannot be
// parsed.
func statusOf(l ctl.Line) dm.StatusLine {
	ty := all.Type(l.Target)
	if ty == nil || ty.ParseStatus == nil {
		return nil
	}
	s, err := ty.ParseStatus(l.Params)
	if err != nil {
		return nil
	}
	return s
}
