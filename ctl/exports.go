package ctl

type (
	// Export is the body of export: it offers a device to one virtual machine at a
	// time, by vhost-user-blk on a Unix socket.
	Export struct {
		Ref
		Path string `json:"path"` // of the socket: absolute
		// Queues is how many queues a guest may use; 0: one for each processor of the
		// daemon's machine, at most 8.
		Queues int `json:"queues,omitempty"`
		// Poll is the longest time in µs for which a queue is watched before its thread
		// sleeps; 0: 32 where processors are spare, negative: none.
		Poll     int    `json:"poll,omitempty"`
		ReadOnly bool   `json:"readOnly,omitempty"`
		Mode     uint32 `json:"mode,omitempty"` // permissions of the socket; 0: 0600
	}
	// Exported is a served export.
	Exported struct {
		Number
		Name     string `json:"name"` // of the device
		Path     string `json:"path"`
		Queues   int    `json:"queues,omitempty"`
		Poll     int    `json:"poll,omitempty"` // as in Export
		ReadOnly bool   `json:"readOnly,omitempty"`
		Mode     uint32 `json:"mode,omitempty"`
		// Problem says why there is no socket at Path; the daemon keeps trying.
		Problem string `json:"problem,omitempty"`
	}
	// Unexport is the body of unexport.
	Unexport struct {
		Path string `json:"path"`
		// Force disconnects the virtual machine that uses it.
		Force bool `json:"force,omitempty"`
	}
)
