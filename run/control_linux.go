//go:build linux && (amd64 || arm64)

package run

import (
	"errors"
	"sync"

	"golang.org/x/sys/unix"

	"udm/blk"
	"udm/run/devfs"
)

// controlNode is /dev/mapper/control.
var controlNode = devfs.Node{Char: true, Number: blk.Number{Major: 10, Minor: 236}, Mode: 0o600}

// controls are the open files of /dev/mapper/control. Each is the end of a pipe, which
// becomes readable with an event, as the kernel's does.
type controls struct {
	mu    sync.Mutex
	pipes map[identity]int // guarded by mu; the end to write to
}

// open returns the caller's end.
func (o *controls) open() (int, error) {
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return -1, err
	}
	id, err := identifyFD(p[0])
	if err != nil {
		return -1, errors.Join(err, unix.Close(p[0]), unix.Close(p[1]))
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.forget()
	o.pipes[id] = p[1]
	return p[0], nil
}

// forget closes the ends whose other end no caller has any more.
func (o *controls) forget() {
	for id, fd := range o.pipes {
		p := []unix.PollFd{{Fd: int32(fd)}}
		if _, err := unix.Poll(p, 0); err == nil && p[0].Revents&unix.POLLERR != 0 {
			_ = unix.Close(fd) // a pipe
			delete(o.pipes, id)
		}
	}
}

func (o *controls) has(id identity) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	_, ok := o.pipes[id]
	return ok
}

// tell makes all of them readable.
func (o *controls) tell() {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, fd := range o.pipes {
		if n, err := unix.IoctlGetInt(fd, unix.TIOCINQ); err == nil && n == 0 {
			_, _ = unix.Write(fd, []byte{0}) // EPIPE: it was closed
		}
	}
}

// arm makes one wait for the next event; path is that of the caller's descriptor.
func (o *controls) arm(path string) error {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	_, _ = unix.Read(fd, make([]byte, 16)) // EAGAIN: nothing has happened
	return unix.Close(fd)
}

func (o *controls) close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, fd := range o.pipes {
		_ = unix.Close(fd) // a pipe
	}
	clear(o.pipes)
}
