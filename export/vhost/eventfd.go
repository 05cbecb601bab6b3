//go:build linux

package vhost

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

var one = func() (b [8]byte) {
	order.PutUint64(b[:], 1)
	return b
}()

// isEventFD reports whether fd is an eventfd, as kicks must be: another file could
// block its reader. Without /proc it returns true.
func isEventFD(fd int) bool {
	name, err := os.Readlink(link(fd))
	return err != nil || name == "anon_inode:[eventfd]"
}

// link is the path of an open file in /proc.
func link(fd int) string { return fmt.Sprintf("/proc/self/fd/%d", fd) }

// notifier is the file by which the front end is notified: an eventfd, or the socket
// or pipe that user-mode Linux uses instead. Notifying never blocks: if the file is
// full, its reader is already being woken.
type notifier struct {
	fd     int // -1: none
	socket bool
}

var noNotifier = notifier{fd: -1}

// newNotifier makes a notifier from a file. It owns fd.
func newNotifier(fd int) (notifier, error) {
	var st unix.Stat_t
	err := unix.Fstat(fd, &st)
	switch kind := st.Mode & unix.S_IFMT; {
	case err == nil && kind == unix.S_IFSOCK:
		return notifier{fd, true}, nil
	case err == nil && kind == unix.S_IFIFO:
		// Opened again it has its own O_NONBLOCK, which the front end does not see.
		again, err := unix.Open(link(fd), unix.O_WRONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		_ = unix.Close(fd)
		return notifier{again, false}, err
	case err == nil && isEventFD(fd):
		return notifier{fd, false}, nil
	}
	_ = unix.Close(fd)
	return noNotifier, errors.Join(errors.New("a file that is not an eventfd, pipe or socket"), err)
}

func (n notifier) tell() {
	switch {
	case n.fd < 0:
	case n.socket:
		_ = unix.Sendto(n.fd, one[:], unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, nil)
	default:
		signal(n.fd)
	}
}

// unblock releases a caller blocked in tell: a front end that fills its eventfd right
// after tell's check can block it. Making room takes away what the front end has not
// read yet, so it is notified again.
func (n notifier) unblock() {
	if n.fd >= 0 && !n.socket {
		_ = unix.SetNonblock(n.fd, true)
		clearEventFD(n.fd)
		signal(n.fd)
	}
}

func (n *notifier) close() { closeFD(&n.fd) }

// signal adds 1 to an eventfd unless it is full.
func signal(fd int) {
	p := [1]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
	if n, err := unix.Poll(p[:], 0); err == nil && n == 1 && p[0].Revents&unix.POLLOUT != 0 {
		_, _ = unix.Write(fd, one[:])
	}
}

// clearEventFD resets an eventfd.
func clearEventFD(fd int) {
	var b [8]byte
	_, _ = unix.Preadv2(fd, [][]byte{b[:]}, -1, unix.RWF_NOWAIT)
}

// await blocks this thread until one of two eventfds is signalled, and resets them.
// The first may belong to another program; reading it never blocks.
func await(kick, own int) error {
	p := [2]unix.PollFd{{Fd: int32(own), Events: unix.POLLIN}, {Fd: int32(kick), Events: unix.POLLIN}}
	if _, err := unix.Poll(p[:], -1); err != nil && err != unix.EINTR {
		return err
	}
	if p[0].Revents&unix.POLLIN != 0 {
		var b [8]byte
		_, _ = unix.Read(own, b[:])
	}
	if p[1].Revents&^unix.POLLIN != 0 {
		return errors.New("the kick eventfd has failed")
	}
	if p[1].Revents != 0 {
		clearEventFD(kick)
	}
	return nil
}
