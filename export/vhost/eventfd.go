//go:build linux

package vhost

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// isEventFD reports whether fd is what kicks and calls should be: another file
// could block whoever writes to it. Without /proc it is believed.
func isEventFD(fd int) bool {
	name, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
	return err != nil || name == "anon_inode:[eventfd]"
}

var one = func() (b [8]byte) {
	order.PutUint64(b[:], 1)
	return b
}()

// isPipe reports whether fd is a pipe: user-mode Linux is called by one.
func isPipe(fd int) bool {
	var st unix.Stat_t
	return unix.Fstat(fd, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFIFO
}

// signal adds 1 to an eventfd, or writes to a pipe. One that is full wakes its reader already, and
// must not block us: the front end decides about O_NONBLOCK.
func signal(fd int) {
	if fd < 0 {
		return
	}
	p := [1]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
	if n, err := unix.Poll(p[:], 0); err == nil && n == 1 && p[0].Revents&unix.POLLOUT != 0 {
		_, _ = unix.Write(fd, one[:])
	}
}

// await blocks this thread until one of two eventfds is signalled, and clears
// them. The first may be another program's, and never blocks the read.
func await(kick, own int) error {
	p := [2]unix.PollFd{{Fd: int32(own), Events: unix.POLLIN}, {Fd: int32(kick), Events: unix.POLLIN}}
	if _, err := unix.Poll(p[:], -1); err != nil && err != unix.EINTR {
		return err
	}
	var b [8]byte
	if p[0].Revents&unix.POLLIN != 0 {
		_, _ = unix.Read(own, b[:])
	}
	if p[1].Revents&^unix.POLLIN != 0 {
		return errors.New("the kick is out of order")
	}
	if p[1].Revents != 0 {
		_, _ = unix.Preadv2(kick, [][]byte{b[:]}, -1, unix.RWF_NOWAIT)
	}
	return nil
}
