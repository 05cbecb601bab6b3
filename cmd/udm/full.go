package main

import (
	"strings"

	"udm/ctl"
	"udm/dm"
	"udm/targets/all"
)

// fullness is how full a part of a device is.
type fullness struct {
	What  string `json:"what"`
	Used  uint64 `json:"used"`
	Total uint64 `json:"total"`
	// State is why there are no numbers: Invalid, Overflow, Fail.
	State string `json:"state,omitempty"`
}

// share is 0 to 1.
func (f fullness) share() float64 {
	if f.Total == 0 {
		return 0
	}
	return float64(f.Used) / float64(f.Total)
}

func (f fullness) String() string { return strings.TrimSpace(f.What + " " + f.amount()) }

// amount is a bar, or why there is none.
func (f fullness) amount() string {
	if f.State != "" {
		return f.State
	}
	return bar(f.Used, f.Total)
}

// fullnessOf reads it from a status line of a target that fills up.
func fullnessOf(l ctl.Line) (fs []fullness) {
	s := statusOf(l)
	if s == nil {
		return nil
	}
	for _, u := range s.Usage() {
		f := fullness{What: u.What, Used: u.Used, Total: u.Total, State: u.State}
		if f.State == "" && f.Total == 0 {
			f.Total = l.Length
		}
		fs = append(fs, f)
	}
	return fs
}

// full is how full a device is, all its targets together.
func full(d ctl.Device) (fs []fullness) {
	for _, l := range d.Status {
		fs = append(fs, fullnessOf(l)...)
	}
	return fs
}

// bars shows it in one cell of a table.
func bars(d ctl.Device) string {
	var s []string
	for _, f := range full(d) {
		s = append(s, f.String())
	}
	return strings.Join(s, ", ")
}

// described is a device for programs.
type described struct {
	ctl.Device
	Full []fullness `json:"full,omitempty"`
}

func withFullness(ds []ctl.Device) []described {
	out := make([]described, 0, len(ds))
	for _, d := range ds {
		out = append(out, described{d, full(d)})
	}
	return out
}

// statusOf is a status, understood; nil: its target says nothing, or nobody
// understands it.
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
