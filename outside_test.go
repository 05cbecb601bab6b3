package udm_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"udm/dm"
)

// goBlocks are the blocks of Go in README, by the names of their packages.
func goBlocks(t *testing.T) map[string]string {
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := make(map[string]string)
	for _, m := range regexp.MustCompile("(?s)\n```go\n(package (\\w+)\n.*?)```\n").FindAllSubmatch(readme, -1) {
		blocks[string(m[2])] = string(m[1])
	}
	return blocks
}

// outside makes a module elsewhere, as README tells to, with one file in it, and
// returns how to run the go command there. What it needs is in the module cache,
// since this module needs it.
func outside(t *testing.T, file, text string) func(args ...string) string {
	root, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	sums, err := os.ReadFile("go.sum")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, p := range map[string][]byte{file: []byte(text), "go.sum": sums} {
		if err := os.WriteFile(filepath.Join(dir, name), p, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	run := func(args ...string) string {
		t.Helper()
		c := exec.Command("go", args...)
		c.Dir = dir
		c.Env = append(os.Environ(), "GOFLAGS=-mod=mod", "GOPROXY=off", "GOWORK=off")
		out, err := c.CombinedOutput()
		if err != nil {
			t.Fatalf("go %s: %v\n%s", strings.Join(args, " "), err, out)
		}
		return string(out)
	}
	run("mod", "init", "example.com/outside")
	run("mod", "edit", "-require", "udm@v0.0.0", "-replace", "udm="+root)
	return run
}

func TestReadmeExampleInAnotherModule(t *testing.T) {
	run := outside(t, "main.go", goBlocks(t)["main"])
	want := fmt.Sprintf("hello, 1048576 bytes, 0 2048 linear %d:0 4096\n", dm.Major)
	if got := run("run", "."); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestReadmeTestInAnotherModule(t *testing.T) {
	run := outside(t, "mystore_test.go", goBlocks(t)["mystore"])
	if out := run("test", "-v", "."); !strings.Contains(out, "60 crash states") {
		t.Error(out)
	}
}
