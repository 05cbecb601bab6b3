//go:build linux

package vhost

import (
	"sync"

	"golang.org/x/sys/unix"
)

// channel is the front end's socket for our messages. It has none before
// SET_BACKEND_REQ_FD.
type channel struct {
	mu     sync.Mutex
	socket notifier // guarded by mu
	config bool     // guarded by mu; the front end listens to changes of the config space
}

// configChange is the message that the config space has to be read again. An answer
// is not asked for: QEMU gives it from where it may be waiting for one of ours.
const configChange request = 2

// set replaces the socket.
func (c *channel) set(n notifier, config bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.socket.close()
	c.socket, c.config = n, config
}

// configChanged sends that message. A front end that reads none does not hold it up.
func (c *channel) configChanged() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.socket.fd >= 0 && c.config {
		m := encode(&message{request: configChange, flags: version}, empty)
		_ = unix.Sendto(c.socket.fd, m, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, nil)
	}
}
