//go:build linux

package vhost

import (
	"sync"

	"golang.org/x/sys/unix"
)

// channel is the front end's socket for messages from this side. It has none before
// SET_BACKEND_REQ_FD.
type channel struct {
	mu     sync.Mutex
	socket notifier // guarded by mu
	config bool     // guarded by mu; the front end accepts config change messages
}

// configChange tells the front end to read the config space again. No reply is
// requested, because QEMU might be waiting for one of ours when it should send it.
const configChange request = 2

// set replaces the socket.
func (c *channel) set(n notifier, config bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.socket.close()
	c.socket, c.config = n, config
}

// configChanged sends configChange. It never blocks, even if the front end does not
// read.
func (c *channel) configChanged() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.socket.fd >= 0 && c.config {
		m := encode(&message{request: configChange, flags: version}, empty)
		_ = unix.Sendto(c.socket.fd, m, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, nil)
	}
}
