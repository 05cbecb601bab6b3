package blk

// Reporter is implemented by devices that can become unreachable or run out of space.
type Reporter interface {
	// Report returns the present condition. It waits for nothing but a system call such
	// as statfs.
	Report() Report
}

// Report is the condition of a device at one moment.
type Report struct {
	State       string `json:"state"`               // a word: connected, connecting, refused; low on space
	Why         string `json:"why,omitempty"`       // reason for an unusual state, else the last problem
	UnderWay    int    `json:"underWay"`            // bios in flight
	Connections int    `json:"connections"`         // connections that are up
	Reconnects  uint64 `json:"reconnects"`          // since the device was opened
	Unflushed   uint64 `json:"unflushed,omitempty"` // acknowledged bytes that no flush covers yet
	Free        uint64 `json:"free,omitempty"`      // free bytes of the file system below a sparse file, if too few
	Lacks       uint64 `json:"lacks,omitempty"`     // bytes that the file may still need, if more than Free
}

// ReportOf returns the report of d, if d has one.
func ReportOf(d Device) (Report, bool) {
	if r, ok := d.(Reporter); ok {
		return r.Report(), true
	}
	return Report{}, false
}
