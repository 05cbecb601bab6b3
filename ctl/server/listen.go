package server

import (
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"

	"udm/ctl"
	"udm/ctl/server/frontend"
)

// unixSocket returns a function that opens a socket accessible to its owner only. It
// replaces one left by a killed daemon.
func unixSocket(path string) func() (net.Listener, error) {
	return func() (net.Listener, error) {
		if len(path) > maxSocketPath {
			return nil, fmt.Errorf("%s is too long for a socket path (%d bytes, at most %d); choose a shorter --root", path, len(path), maxSocketPath)
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

// socket returns the socket for a front end that the service manager opened, or open.
func (c *Config) socket(name string, open func() (net.Listener, error)) func() (net.Listener, error) {
	if l := c.Sockets[name]; l != nil {
		return func() (net.Listener, error) { return l, nil }
	}
	return open
}

// checkSockets refuses sockets that match no front end.
func checkSockets(sockets map[string]net.Listener, list []frontend.Server) error {
	for name := range sockets {
		if name == metricsName || name == receiverName || name == webName || !slices.ContainsFunc(list, func(f frontend.Server) bool { return f.Name() == name }) {
			return fmt.Errorf("a socket is named %q; use FileDescriptorName=%s, %s or %s in the socket unit", name, controlName, nbdName, nbdTCPName)
		}
	}
	return nil
}

// The names of the front ends that have sockets; those of the last three are
// never passed on.
const controlName, nbdName, nbdTCPName, metricsName, receiverName, webName = "control", "nbd", "nbd-tcp", "metrics", "receive", ctl.WebFrontEnd

// webAddress returns HOST:PORT for the page: without a host, of this machine only.
func webAddress(address string) (string, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return "", fmt.Errorf("--web %s: give HOST:PORT, such as localhost:9255", address)
	}
	if host == "" {
		host = "localhost"
	}
	return net.JoinHostPort(host, port), nil
}

// metricsSocket is unix:PATH or HOST:PORT.
func metricsSocket(address string) func() (net.Listener, error) {
	path, ok := strings.CutPrefix(address, "unix:")
	if !ok {
		return tcpSocket(address)
	}
	return func() (net.Listener, error) {
		if st, err := os.Lstat(path); err == nil && st.Mode()&os.ModeSocket == 0 {
			return nil, fmt.Errorf("%s is there and is no socket; choose another path for --metrics", path)
		}
		return unixSocket(path)()
	}
}

func tcpSocket(address string) func() (net.Listener, error) {
	return func() (net.Listener, error) { return net.Listen("tcp", address) }
}

// maxSocketPath is the maximum length of a Unix socket path on the strictest
// supported system.
const maxSocketPath = 103
