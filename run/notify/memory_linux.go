//go:build linux && (amd64 || arm64)

package notify

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

const page = 4096

// Read reads memory of the caller.
func (c *Call) Read(addr uint64, b []byte) error {
	n, err := unix.ProcessVMReadv(int(c.TID), iovec(b), remote(addr, b), 0)
	return whole(n, b, err)
}

// Write writes memory of the caller.
func (c *Call) Write(addr uint64, b []byte) error {
	if len(b) == 0 {
		return nil
	}
	n, err := unix.ProcessVMWritev(int(c.TID), iovec(b), remote(addr, b), 0)
	return whole(n, b, err)
}

func iovec(b []byte) []unix.Iovec {
	v := []unix.Iovec{{Base: &b[0]}}
	v[0].SetLen(len(b))
	return v
}

func remote(addr uint64, b []byte) []unix.RemoteIovec {
	return []unix.RemoteIovec{{Base: uintptr(addr), Len: len(b)}}
}

func whole(n int, b []byte, err error) error {
	if err == nil && n != len(b) {
		err = unix.EFAULT
	}
	return err
}

// String reads a text that ends with NUL, as long as a path may be.
func (c *Call) String(addr uint64) (string, error) {
	var out []byte
	for buf := make([]byte, page); len(out) < unix.PathMax; {
		b := buf[:page-addr%page] // the next page may not be mapped
		if len(out) == 0 && len(b) > 256 {
			b = b[:256]
		}
		if err := c.Read(addr, b); err != nil {
			return "", err
		}
		if i := bytes.IndexByte(b, 0); i >= 0 {
			return string(append(out, b[:i]...)), nil
		}
		out = append(out, b...)
		addr += uint64(len(b))
	}
	return "", unix.ENAMETOOLONG
}

// FD is the path of a descriptor of the caller.
func (c *Call) FD(fd int32) string { return fmt.Sprintf("/proc/%d/fd/%d", c.TID, fd) }

// Dir is the path of the directory that a descriptor means, or of the working directory.
func (c *Call) Dir(fd int32) string {
	if fd == unix.AT_FDCWD {
		return fmt.Sprintf("/proc/%d/cwd", c.TID)
	}
	return c.FD(fd)
}

// Interrupted reports whether a signal waits for the caller that would interrupt a call.
func (c *Call) Interrupted() bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", c.TID))
	return err == nil && pending(string(text))
}

// pending reads the masks of /proc/TID/status: signals that wait and are not blocked.
// Signals that are ignored never wait.
func pending(status string) bool {
	var masks [3]uint64
	for line := range strings.Lines(status) {
		for i, name := range []string{"SigPnd:", "ShdPnd:", "SigBlk:"} {
			if rest, ok := strings.CutPrefix(line, name); ok {
				masks[i], _ = strconv.ParseUint(strings.TrimSpace(rest), 16, 64)
			}
		}
	}
	return (masks[0]|masks[1])&^masks[2] != 0
}
