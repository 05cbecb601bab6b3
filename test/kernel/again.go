//go:build unix

package kernel

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"
)

// ownFaults are what a user-mode kernel says when it has lost its hold on a process of its own, which happens on busy hosts. What
// the script did until then, and whether it came to its end, says nothing.
var ownFaults = regexp.MustCompile(`.*(child stopped with signal \d+|failed to wait for SIGTRAP|expected SIGSTOP, got status).*`)

// OwnFault is the error of a kernel that failed by itself.
type OwnFault struct {
	why     string
	console string
}

func (f *OwnFault) Error() string {
	return fmt.Sprintf("boot: the kernel failed by itself: %s\nconsole: %s", f.why, f.console)
}

// again tries, and tries once more if a kernel failed by itself: with the files and folders at paths as they were before.
func again(t testing.TB, paths []string, try func() error) error {
	t.Helper()
	before, err := os.MkdirTemp("", "before")
	if err != nil {
		return err
	}
	defer os.RemoveAll(before)
	kept := func(i int) string { return filepath.Join(before, strconv.Itoa(i)) }
	for i, path := range paths {
		if err := copyAll(path, kept(i)); err != nil {
			return err
		}
	}
	err = try()
	var fault *OwnFault
	if !errors.As(err, &fault) {
		return err
	}
	t.Logf("booting again, once: the kernel failed by itself: %s", fault.why)
	for i, path := range paths {
		if err := errors.Join(os.RemoveAll(path), copyAll(kept(i), path)); err != nil {
			return err
		}
	}
	return try()
}

// copyAll copies a file or a folder, holes as holes.
func copyAll(from, to string) error {
	if out, err := exec.Command("cp", "--archive", "--sparse=always", "--", from, to).CombinedOutput(); err != nil {
		return fmt.Errorf("cp %s: %w: %s", from, err, out)
	}
	return nil
}
