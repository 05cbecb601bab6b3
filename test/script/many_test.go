package script

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"udm/ctl"
)

const many = 1000

// TestManyDevices makes a thousand devices in one daemon, each by a command of
// its own on one connection, asks for the status of all in one call, and looks
// at the daemon's memory; then again after a restart.
func TestManyDevices(t *testing.T) {
	dir := shortDir(t)
	root := filepath.Join(dir, "r")
	image := filepath.Join(dir, "image")
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(image, many*8*512); err != nil {
		t.Fatal(err)
	}
	d := startFor(t, root)
	createMany(t, root, image)
	checkMany(t, root, d)
	if err := d.stop(); err != nil {
		t.Fatal(err)
	}
	d = startFor(t, root)
	checkMany(t, root, d)
	run(t, root, "dmsetup", "remove_all")
	if err := d.stop(); err != nil {
		t.Fatal(err)
	}
}

func createMany(t *testing.T, root, image string) {
	client := ctl.NewClient(root)
	defer client.Close()
	for i := range many {
		_, err := client.Create(context.Background(), ctl.Create{
			Name: fmt.Sprintf("dev-%04d", i), Table: fmt.Sprintf("0 8 linear %s %d", image, i*8)})
		if err != nil {
			t.Fatal(err)
		}
	}
}

func checkMany(t *testing.T, root string, d *daemon) {
	client := ctl.NewClient(root)
	defer client.Close()
	ds, err := client.List(context.Background(), ctl.Query{With: []ctl.With{ctl.WithStatus, ctl.WithTable}})
	if err != nil || len(ds) != many || len(ds[many-1].Status) != 1 || len(ds[many-1].Table) != 1 {
		t.Fatalf("%d devices, %v", len(ds), err)
	}
	rss := memory(t, d.cmd.Process.Pid)
	t.Logf("%d MB of memory", rss>>20)
	if limit := uint64(200 << 20); rss > limit {
		t.Errorf("%d bytes of memory, more than %d", rss, limit)
	}
}

// memory is the most resident memory that a process has had, in bytes.
func memory(t *testing.T, pid int) uint64 {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range bytes.Lines(text) {
		if f := bytes.Fields(line); len(f) > 1 && string(f[0]) == "VmHWM:" {
			kb, err := strconv.ParseUint(string(f[1]), 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return kb << 10
		}
	}
	t.Fatal("no VmHWM")
	return 0
}
