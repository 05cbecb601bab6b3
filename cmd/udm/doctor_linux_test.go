package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// On a machine that lacks everything all checks fail, each with a command; on a complete one
// all succeed.
func TestDoctor(t *testing.T) {
	dir := t.TempDir()
	bare := machine{dir: dir, limit: func(int) uint64 { return 1024 }, program: func(string) bool { return false }}
	file := func(path, text string) {
		path = filepath.Join(dir, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	file("proc/sys/kernel/io_uring_disabled", "2\n")
	file("proc/sys/vm/max_map_count", "1000\n")
	for _, c := range bare.examine() {
		if c.OK || c.Problem == "" || c.Without == "" || c.Command == "" {
			t.Errorf("%+v", c)
		}
	}
	for _, path := range []string{"dev/fuse", "dev/loop-control", "sys/module/nbd", "sys/module/ublk_drv", "proc/sys/kernel/io_uring_disabled"} {
		file(path, "0\n")
	}
	file("proc/sys/vm/max_map_count", "1048576\n")
	file("proc/sys/kernel/osrelease", "6.12.115-cloud-amd64\n")
	whole := machine{dir: dir, root: true, limit: func(int) uint64 { return unix.RLIM_INFINITY }, program: bare.program}
	for _, c := range whole.examine() {
		if !c.OK {
			t.Errorf("%+v", c)
		}
	}
	file("proc/sys/kernel/osrelease", "6.12.95+deb12-cloud-amd64\n")
	if c := whole.ublk(); c.OK || !strings.Contains(c.Problem, "6.12.95") || c.Without == "" || c.Command == "" {
		t.Errorf("%+v", c)
	}
}
