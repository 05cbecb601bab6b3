// Package program builds commands of this module for tests that run them, each
// once in a test binary. go test takes the module's sources for what such a test
// has read: when one changes, an earlier result is not taken for today's.
package program

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

var built struct {
	sync.Mutex
	dir      string            // empty: nothing was built
	programs map[string]string // by tag and package
}

// Main is the TestMain of a package that builds programs; it removes them, and runs what
// else is to be done at the end.
func Main(m *testing.M, end ...func()) {
	code := m.Run()
	for _, do := range end {
		do()
	}
	if built.dir != "" {
		os.RemoveAll(built.dir)
	}
	os.Exit(code)
}

// Build builds a command of this module without C, so that it also runs in the
// kernel of package kernel, and returns its path.
func Build(t testing.TB, pkg string) string {
	t.Helper()
	return BuildWith(t, pkg, "")
}

// BuildWith is Build with a build tag, and with C.
func BuildWith(t testing.TB, pkg, tag string) string {
	t.Helper()
	path, err := buildOnce(pkg, tag)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// MustBuild is Build where no test is at hand; it panics if that fails.
func MustBuild(pkg string) string {
	path, err := buildOnce(pkg, "")
	if err != nil {
		panic(err)
	}
	return path
}

func buildOnce(pkg, tag string) (path string, err error) {
	built.Lock()
	defer built.Unlock()
	key := filepath.Join(tag, pkg)
	if path = built.programs[key]; path != "" {
		return path, nil
	}
	if path, err = build(pkg, tag); err == nil {
		built.programs[key] = path
	}
	return path, err
}

func build(pkg, tag string) (string, error) {
	if built.dir == "" {
		dir, err := os.MkdirTemp("", "udm-bin")
		if err != nil {
			return "", err
		}
		built.dir, built.programs = dir, make(map[string]string)
		if err := readSources(); err != nil {
			return "", err
		}
	}
	path := filepath.Join(built.dir, tag, filepath.Base(pkg))
	cmd := exec.Command("go", "build", "-tags", tag, "-o", path, pkg)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if tag != "" {
		cmd.Env = append(os.Environ(), "CGO_ENABLED=1")
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build %s: %w\n%s", pkg, err, out)
	}
	return path, nil
}

// readSources reads the module's folders, with which go test notes the sizes and
// times of the files in them.
func readSources() error {
	mod, err := exec.Command("go", "env", "GOMOD").Output()
	if err != nil {
		return err
	}
	root := filepath.Dir(strings.TrimSpace(string(mod)))
	return filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && path != root && leaveOut(d.Name()) {
			return fs.SkipDir
		}
		return err
	})
}

// leaveOut tells folders that hold no sources.
func leaveOut(name string) bool {
	return name[0] == '.' || name == "testdata" || name == "bin" || name == "out" || name == "udm-data"
}
