package export

import "time"

// Client is a client of a server: a connection, or an open file.
type Client struct {
	Address  string // remote address of the connection; "" if none
	Export   string // "" until the client has chosen one
	ReadOnly bool
	// Stalled is how long the client has not taken answers that are there for it; 0 if it
	// takes them, or if its protocol does not tell.
	Stalled time.Duration
}
