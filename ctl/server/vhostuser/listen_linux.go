package vhostuser

import (
	"context"
	"errors"
	"net"
	"os"
	"syscall"
)

// listenUnix makes a socket that has its final mode from the start, without a race:
// Linux takes the mode of the bound socket and the umask.
func listenUnix(path string, mode uint32) (*net.UnixListener, error) {
	c := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) (err error) {
		cerr := raw.Control(func(fd uintptr) { err = syscall.Fchmod(int(fd), mode) })
		return errors.Join(err, cerr)
	}}
	l, err := c.Listen(context.Background(), "unix", path)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, os.FileMode(mode)); err != nil { // restore what the umask removed
		l.Close()
		return nil, err
	}
	return l.(*net.UnixListener), nil
}
