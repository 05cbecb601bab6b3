package ctl

// FrontEnd is one of the ways in to a daemon's devices: a socket, a directory of
// files, the control protocol itself.
type FrontEnd struct {
	Name string `json:"name"` // nbd, nbd-tcp, files, attachments, vhost-user, control
	// Addresses are where clients find it: paths of sockets, directories or block
	// devices, or HOST:PORT.
	Addresses []string         `json:"addresses,omitempty"`
	Exports   int              `json:"exports"` // how many devices it offers
	Clients   []FrontEndClient `json:"clients,omitempty"`
}

// FrontEndClient is who a front end serves: a connection, an open file, the kernel
// with a block device.
type FrontEndClient struct {
	Address  string `json:"address,omitempty"` // of the other side, or the directory of the file
	Device   string `json:"device,omitempty"`  // "" of a client that has chosen none
	ReadOnly bool   `json:"readOnly,omitempty"`
}
