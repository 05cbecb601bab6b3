package blk

// Reporter is a device that can tell people how it is: one whose data are
// elsewhere, so that it may be cut off for a while, or that may find no space.
type Reporter interface {
	// Report does not block.
	Report() Report
}

// Report is how a device is at a moment.
type Report struct {
	State       string `json:"state"`               // a word: connected, connecting, refused; low on space
	Why         string `json:"why,omitempty"`       // of a state that is not the usual one; else of the last trouble
	UnderWay    int    `json:"underWay"`            // bios that have not ended
	Connections int    `json:"connections"`         // that are up
	Reconnects  uint64 `json:"reconnects"`          // since the device was opened
	Unflushed   uint64 `json:"unflushed,omitempty"` // bytes that were acknowledged and that no flush covers yet
	Free        uint64 `json:"free,omitempty"`      // bytes on the file system of a sparse file, if they are few
	Lacks       uint64 `json:"lacks,omitempty"`     // bytes that the file may take there, if they are more
}

// ReportOf asks d, which may have nothing to tell.
func ReportOf(d Device) (Report, bool) {
	if r, ok := d.(Reporter); ok {
		return r.Report(), true
	}
	return Report{}, false
}
