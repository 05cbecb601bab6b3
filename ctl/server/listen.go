package server

import (
	"errors"
	"fmt"
	"net"
	"os"
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

func tcpSocket(address string) func() (net.Listener, error) {
	return func() (net.Listener, error) { return net.Listen("tcp", address) }
}

// maxSocketPath is how long the path of a Unix socket may be on the strictest
// system.
const maxSocketPath = 103
