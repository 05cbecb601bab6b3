package server

import (
	"errors"
	"fmt"
	"net"
	"os"
	"slices"

	"udm/ctl/server/frontend"
)

// unixSocket opens a socket for its owner only, in place of one that a killed daemon
// has left.
func unixSocket(path string) func() (net.Listener, error) {
	return func() (net.Listener, error) {
		if len(path) > maxSocketPath {
			return nil, fmt.Errorf("%s is too long for the path of a socket (%d bytes, at most %d); choose a shorter --root", path, len(path), maxSocketPath)
		}
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
		l, err := net.Listen("unix", path)
		if err != nil {
			return nil, err
		}
		if err := os.Chmod(path, 0o600); err != nil {
			l.Close()
			return nil, err
		}
		return l, nil
	}
}

// socket is the socket of a front end that a service manager has opened, or else
// opens one.
func (c *Config) socket(name string, open func() (net.Listener, error)) func() (net.Listener, error) {
	if l := c.Sockets[name]; l != nil {
		return func() (net.Listener, error) { return l, nil }
	}
	return open
}

// checkSockets refuses sockets that no front end is for.
func checkSockets(sockets map[string]net.Listener, list []frontend.Server) error {
	for name := range sockets {
		if !slices.ContainsFunc(list, func(f frontend.Server) bool { return f.Name() == name }) {
			return fmt.Errorf("a socket is named %q; use FileDescriptorName=%s, %s or %s in the socket unit", name, controlName, nbdName, nbdTCPName)
		}
	}
	return nil
}

// The names of the front ends that have sockets.
const controlName, nbdName, nbdTCPName = "control", "nbd", "nbd-tcp"

func tcpSocket(address string) func() (net.Listener, error) {
	return func() (net.Listener, error) { return net.Listen("tcp", address) }
}

// maxSocketPath is how long the path of a Unix socket may be on the strictest
// system.
const maxSocketPath = 103
