package vhostuser

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"udm/ctl"
	"udm/ctl/server/exports"
	"udm/dm"
	"udm/export"
	"udm/export/vhost"
)

// socket is one export.
type socket struct {
	spec
	device  *dm.Device
	server  *vhost.Server // nil: not served
	served  chan struct{} // closed when the listener is closed
	problem string        // why it is not served, or ""
}

// Bounds of an export.
const (
	maxPath     = 107
	maxQueues   = 64
	maxPoll     = 1000 // µs
	defaultMode = 0o600
)

// check refuses exports that can never be served.
func (x *socket) check() error {
	switch {
	case !filepath.IsAbs(x.Path):
		return dm.Errorf(syscall.EINVAL, "%q is not an absolute path", x.Path)
	case len(x.Path) > maxPath:
		return dm.Errorf(syscall.ENAMETOOLONG, "%s is too long for a socket path (%d bytes, at most %d)", x.Path, len(x.Path), maxPath)
	case x.Queues < 0 || x.Queues > maxQueues:
		return dm.Errorf(syscall.EINVAL, "invalid number of queues %d; use 1 to %d", x.Queues, maxQueues)
	case x.Poll > maxPoll:
		return dm.Errorf(syscall.EINVAL, "a queue cannot be watched for %d µs; use at most %d", x.Poll, maxPoll)
	case x.Mode&^0o777 != 0:
		return dm.Errorf(syscall.EINVAL, "%#o is not a valid socket mode; use 600, 660 or 666", x.Mode)
	}
	return nil
}

func (x *socket) describe() ctl.Exported {
	return ctl.Exported{Number: ctl.Number(x.device.Number()), Name: x.device.Name(), Path: x.Path,
		Queues: x.Queues, Poll: x.Poll, ReadOnly: x.ReadOnly, Mode: x.Mode, Problem: x.problem}
}

// serve makes the socket, unless it exists.
func (x *socket) serve(s *Sockets) (err error) {
	if x.server != nil {
		return nil
	}
	defer func() {
		if x.problem = ""; err != nil {
			x.problem = err.Error()
		}
	}()
	server, err := x.newServer(s)
	if err != nil {
		return err
	}
	l, err := x.listen()
	if err != nil {
		return err
	}
	x.server, x.served = server, make(chan struct{})
	x.accept(s, l)
	return nil
}

func (x *socket) newServer(s *Sockets) (*vhost.Server, error) {
	set := s.exports
	set.ReadOnly = set.ReadOnly || x.ReadOnly
	return vhost.New(vhost.Config{Exports: set.Of(x.device), Name: exports.Numbered(x.Minor),
		Queues: x.Queues, Poll: time.Duration(x.Poll) * time.Microsecond, Serial: x.device.Name(), Log: s.log})
}

// accept has the server accept virtual machines.
func (x *socket) accept(s *Sockets, l *net.UnixListener) {
	accept, served := x.server.Listen(l), x.served
	go func() {
		defer close(served)
		if err := accept(); !errors.Is(err, vhost.ErrClosed) {
			s.log.Error("an export has ended", "path", x.Path, "reason", err)
		}
	}()
}

// listen makes the socket, replacing one left by a killed daemon.
func (x *socket) listen() (*net.UnixListener, error) {
	st, err := os.Lstat(x.Path)
	switch {
	case errors.Is(err, os.ErrNotExist):
	case err != nil:
		return nil, err
	case st.Mode().Type() != os.ModeSocket:
		return nil, dm.Errorf(syscall.EEXIST, "%s exists and is not a socket; choose another path", x.Path)
	case answers(x.Path):
		return nil, dm.Errorf(syscall.EBUSY, "another program listens at %s; stop it, or choose another path", x.Path)
	default:
		if err := os.Remove(x.Path); err != nil {
			return nil, err
		}
	}
	mode := x.Mode
	if mode == 0 {
		mode = defaultMode
	}
	l, err := listenUnix(x.Path, mode)
	if err != nil {
		return nil, fmt.Errorf("cannot make the socket: %w", err)
	}
	return l, nil
}

func answers(path string) bool {
	c, err := net.Dial("unix", path)
	if err == nil {
		c.Close()
	}
	return !errors.Is(err, syscall.ECONNREFUSED)
}

// clients returns the connected front end, if any.
func (x *socket) clients() []export.Client {
	if x.server == nil {
		return nil
	}
	return x.server.Clients()
}

func (x *socket) changed() {
	if x.server != nil {
		x.server.Changed()
	}
}

// close closes the socket when the requests in progress are complete.
func (x *socket) close() {
	if x.server == nil {
		return
	}
	_ = x.server.Close() // has no error
	<-x.served
}
