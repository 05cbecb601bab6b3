package ctl

// WebFrontEnd is the name of the front end that serves the page for people.
const WebFrontEnd = "web"

// FrontEnd is one of the ways to access a daemon's devices: a socket, a directory of
// files, the control protocol itself.
type FrontEnd struct {
	Name string `json:"name"` // nbd, nbd-tcp, files, attachments, vhost-user, metrics, web, control
	// Addresses are where clients find it: paths of sockets, directories or block
	// devices, or HOST:PORT.
	Addresses []string         `json:"addresses,omitempty"`
	Exports   int              `json:"exports"` // number of devices offered
	Clients   []FrontEndClient `json:"clients,omitempty"`
}

// FrontEndClient is a client of a front end: a connection, an open file, or the
// kernel with a block device.
type FrontEndClient struct {
	Address  string `json:"address,omitempty"` // of the client, or the directory of the file
	Device   string `json:"device,omitempty"`  // "": the client has not chosen one
	ReadOnly bool   `json:"readOnly,omitempty"`
	// Stalled is how many seconds it has not taken its answers.
	Stalled uint64 `json:"stalled,omitempty"`
}
