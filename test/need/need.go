// Package need says what a test needs of the machine. Where that is missing the
// test is skipped, with the reason; when CI is set it fails instead, so that
// nothing is left out there.
package need

import (
	_ "embed"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// packages are lines of a Debian package and programs in it; make packages
// installs them.
//
//go:embed packages.txt
var packages string

// Tools needs programs.
func Tools(t testing.TB, names ...string) {
	t.Helper()
	for _, name := range names {
		if _, err := exec.LookPath(name); err != nil {
			Missing(t, name+" is missing"+from(name))
		}
	}
}

// from names the Debian package of a program.
func from(program string) string {
	for line := range strings.Lines(packages) {
		if words := strings.Fields(line); slices.Contains(words[1:], program) {
			return fmt.Sprintf(" (Debian: apt-get install %s)", words[0])
		}
	}
	return ""
}

// Root needs to be root.
func Root(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		Missing(t, "this user is not root")
	}
}

// Open needs the right to open files for reading and writing.
func Open(t testing.TB, paths ...string) {
	t.Helper()
	for _, path := range paths {
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			Missing(t, err.Error())
			return
		}
		f.Close()
	}
}

// Has reports whether this user is root and may open files for reading and writing, for a part
// of a test that is left out without them.
func Has(t testing.TB, paths ...string) bool {
	t.Helper()
	if os.Getenv("CI") != "" {
		Root(t)
		Open(t, paths...)
	}
	for _, path := range paths {
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			return false
		}
		f.Close()
	}
	return os.Geteuid() == 0
}

// Missing ends the test because of what it needs and does not have.
func Missing(t testing.TB, why string) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatal(why)
	}
	t.Skip(why)
}
