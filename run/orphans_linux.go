//go:build linux && (amd64 || arm64)

package run

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// orphans are the processes that programs have left behind; this process is their
// reaper. but is a child that is none of them, or 0.
type orphans struct{ but int }

// patience is how long orphans may take to end.
const patience = 5 * time.Second

// wait waits until all of them have ended.
func (o orphans) wait() {
	for _, pid := range o.children() {
		reap(pid)
	}
	if len(o.children()) > 0 {
		o.wait()
	}
}

// end ends all of them, and those that they leave behind.
func (o orphans) end() {
	var late atomic.Bool
	hurry := time.AfterFunc(patience, func() {
		late.Store(true)
		o.signal(syscall.SIGKILL)
	})
	defer hurry.Stop()
	for list := o.children(); len(list) > 0; list = o.children() {
		sig := syscall.SIGTERM
		if late.Load() {
			sig = syscall.SIGKILL
		}
		o.signal(sig)
		reap(list[0])
	}
}

// reapEnded reaps those that have ended; not is a child that somebody else waits for.
func (o orphans) reapEnded(not int) {
	for _, pid := range o.children() {
		if pid != not {
			_, _ = unix.Wait4(pid, nil, unix.WNOHANG, nil) // nothing to do about an error
		}
	}
}

func (o orphans) signal(sig syscall.Signal) {
	for _, pid := range o.children() {
		_ = syscall.Kill(pid, sig) // it has ended
	}
}

func reap(pid int) {
	for {
		if _, err := unix.Wait4(pid, nil, 0, nil); err != unix.EINTR {
			return
		}
	}
}

// children are the children of this process.
func (o orphans) children() (pids []int) {
	stats, _ := filepath.Glob("/proc/[0-9]*/stat") // the pattern is well formed
	for _, path := range stats {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		pid, parent, err := parseStat(string(text))
		if err == nil && parent == os.Getpid() && pid != o.but {
			pids = append(pids, pid)
		}
	}
	return pids
}

// parseStat parses /proc/PID/stat: PID (NAME) STATE PARENT. The name may have anything in
// it.
func parseStat(text string) (pid, parent int, err error) {
	if _, err := fmt.Sscan(text, &pid); err != nil {
		return 0, 0, err
	}
	var state string
	_, err = fmt.Sscan(text[strings.LastIndexByte(text, ')')+1:], &state, &parent)
	return pid, parent, err
}
