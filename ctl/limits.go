package ctl

type (
	// Rate bounds I/O in one direction; 0 does not.
	Rate struct {
		IOPS       uint64 `json:"iops,omitempty"`
		IOPSBurst  uint64 `json:"iopsBurst,omitempty"` // at once after a pause; 0: of a tenth of a second
		Bytes      uint64 `json:"bytes,omitempty"`     // in a second
		BytesBurst uint64 `json:"bytesBurst,omitempty"`
	}
	// Limit is the body of limit: what the clients of a device may do, or those of all
	// devices of a group together. Without rates and group there is no limit.
	Limit struct {
		// Device is a device's name, "" for the limit of a group.
		Device string `json:"device,omitempty"`
		// Group is the group that the device belongs to, or the one whose limit this is.
		Group string `json:"group,omitempty"`
		Read  Rate   `json:"read,omitzero"`
		Write Rate   `json:"write,omitzero"`
	}
)

// None reports whether l bounds nothing.
func (l Limit) None() bool {
	return l.Read == (Rate{}) && l.Write == (Rate{}) && (l.Device == "" || l.Group == "")
}
