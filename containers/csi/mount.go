package csi

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// mounted is a line of /proc/self/mountinfo.
type mounted struct {
	number   string // of the device, MAJOR:MINOR
	root, at string
}

func mounts() (ms []mounted, err error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	unescape := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)
	s := bufio.NewScanner(f)
	for s.Scan() {
		if w := strings.Fields(s.Text()); len(w) > 4 {
			ms = append(ms, mounted{w[2], unescape.Replace(w[3]), unescape.Replace(w[4])})
		}
	}
	return ms, s.Err()
}

// mountAt is what is mounted at a path; nil: nothing.
func mountAt(path string) (*mounted, error) {
	ms, err := mounts()
	path = filepath.Clean(path)
	for i := len(ms) - 1; i >= 0; i-- {
		if ms[i].at == path {
			return &ms[i], err
		}
	}
	return nil, err
}

// numberOf is the number of a block device, as mountinfo writes it.
func numberOf(path string) (string, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return "", &os.PathError{Op: "stat", Path: path, Err: err}
	}
	return fmt.Sprintf("%d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev)), nil
}

// flagsOf divides mount options into flags and what the file system gets.
func flagsOf(options []string) (flags uintptr, data string) {
	known := map[string]uintptr{"ro": unix.MS_RDONLY, "rw": 0, "noatime": unix.MS_NOATIME, "relatime": unix.MS_RELATIME, "nodiratime": unix.MS_NODIRATIME,
		"nosuid": unix.MS_NOSUID, "nodev": unix.MS_NODEV, "noexec": unix.MS_NOEXEC, "sync": unix.MS_SYNCHRONOUS, "dirsync": unix.MS_DIRSYNC, "lazytime": unix.MS_LAZYTIME}
	var rest []string
	for _, o := range options {
		if flag, is := known[o]; is {
			flags |= flag
		} else {
			rest = append(rest, o)
		}
	}
	return flags, strings.Join(rest, ",")
}

// mountDevice mounts a device, unless it is mounted there. What is mounted there of a
// device that is no more gives way.
func mountDevice(device, at, fstype string, options []string) error {
	number, err := numberOf(device)
	if err != nil {
		return err
	}
	m, err := mountAt(at)
	switch {
	case err != nil:
		return err
	case m != nil && m.number == number:
		return nil
	case m != nil:
		if err := unix.Unmount(at, unix.MNT_DETACH); err != nil {
			return &os.PathError{Op: "unmount", Path: at, Err: err}
		}
	}
	if err := os.MkdirAll(at, 0o750); err != nil {
		return err
	}
	flags, data := flagsOf(options)
	if err := unix.Mount(device, at, fstype, flags, data); err != nil {
		return fmt.Errorf("mounting %s at %s as %s (%s): %w", device, at, fstype, strings.Join(options, ","), err)
	}
	return nil
}

// bind shows a file or directory at another path, unless it is shown there. What is shown
// there of a device that is no more gives way.
func bind(from, at string, readOnly bool) error {
	m, err := mountAt(at)
	if err != nil || m != nil && same(from, at) {
		return err
	}
	if m != nil {
		if err := unix.Unmount(at, unix.MNT_DETACH); err != nil {
			return &os.PathError{Op: "unmount", Path: at, Err: err}
		}
	}
	if err := unix.Mount(from, at, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("binding %s to %s: %w", from, at, err)
	}
	if !readOnly {
		return nil
	}
	if err := unix.Mount("", at, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		return errors.Join(fmt.Errorf("making %s read-only: %w", at, err), unix.Unmount(at, 0))
	}
	return nil
}

// same tells whether two paths are the same file. One on a device that is no more is not.
func same(a, b string) bool {
	var sa, sb unix.Stat_t
	if unix.Stat(a, &sa) != nil || unix.Stat(b, &sb) != nil {
		return false
	}
	return sa.Dev == sb.Dev && sa.Ino == sb.Ino
}

// unmount undoes mounts at a path, also of one whose device has gone, and removes it.
func unmount(at string) error {
	for {
		m, err := mountAt(at)
		if err != nil {
			return err
		}
		if m == nil {
			break
		}
		if err := unix.Unmount(at, 0); err != nil {
			return &os.PathError{Op: "unmount", Path: at, Err: err}
		}
	}
	if err := os.Remove(at); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}
