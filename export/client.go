package export

// Client is a client of a server: a connection, or an open file.
type Client struct {
	Address  string // remote address of the connection; "" if none
	Export   string // "" until the client has chosen one
	ReadOnly bool
}
