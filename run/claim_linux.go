//go:build linux && (amd64 || arm64)

package run

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"udm/blk"
)

// claimByte is the byte of a device's file that an exclusive open locks. It lies behind
// every disk.
const claimByte = 1<<62 - 1

// claim claims a device for an open file, which is refused if a table uses the device or
// another open file claims it.
func (s *session) claim(fd int, n blk.Number, flags int) error {
	if s.devices.usedByTable(n) {
		return unix.EBUSY
	}
	s.claiming.Lock()
	defer s.claiming.Unlock()
	if claimed(fd) {
		return unix.EBUSY
	}
	lock := unix.Flock_t{Type: unix.F_RDLCK, Start: claimByte, Len: 1}
	if flags&unix.O_ACCMODE == unix.O_WRONLY {
		lock.Type = unix.F_WRLCK
	}
	if err := unix.FcntlFlock(uintptr(fd), unix.F_OFD_SETLK, &lock); err != nil {
		return unix.EBUSY
	}
	s.claims[n] = true
	return nil
}

// claimed reports whether another open of the same file claims it.
func claimed(fd int) bool {
	lock := unix.Flock_t{Type: unix.F_WRLCK, Start: claimByte, Len: 1}
	err := unix.FcntlFlock(uintptr(fd), unix.F_OFD_GETLK, &lock)
	return err == nil && lock.Type != unix.F_UNLCK
}

// claimedByProgram reports whether a program has claimed a device, so that no table may
// take it.
func (s *session) claimedByProgram(n blk.Number) bool {
	s.claiming.Lock()
	defer s.claiming.Unlock()
	if !s.claims[n] {
		return false
	}
	fd, err := s.openDevice(n, unix.O_RDONLY)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	s.claims[n] = claimed(fd)
	return s.claims[n]
}

// openInPrograms reports whether a process that this user can look at has a mapped
// device open. The daemon learns of a close shortly after it has returned; a device
// that nobody has open is one whose close is on its way.
func (s *session) openInPrograms(n blk.Number) bool {
	dirs, err := os.ReadDir("/proc")
	if err != nil {
		return true
	}
	for _, d := range dirs {
		if d.IsDir() && strings.Trim(d.Name(), "0123456789") == "" && s.hasOpen(d.Name(), n) {
			return true
		}
	}
	return false
}

func (s *session) hasOpen(pid string, n blk.Number) bool {
	dir := fmt.Sprintf("/proc/%s/fd", pid)
	fds, err := os.ReadDir(dir)
	if err != nil {
		return false // of another user, or it has ended
	}
	for _, e := range fds {
		id, _, err := identify(dir + "/" + e.Name())
		if err != nil {
			continue
		}
		if at, ok := s.opened.find(id); ok && at == n {
			return true
		}
	}
	return false
}
