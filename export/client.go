package export

// Client is who a server serves: a connection, or an open file.
type Client struct {
	Address  string // of the connection's other side; "" where there is none
	Export   string // "" as long as it has chosen none
	ReadOnly bool
}
