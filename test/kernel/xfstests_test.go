//go:build linux

package kernel

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"udm/ctl"
	"udm/test/xfstests"
	"udm/volume"
)

// TestKernelXfstests runs tests of file systems twice: on plain disks, and on a device over a
// file and a thin volume that the kernel has by vhost-user. None that passes there fails here.
func TestKernelXfstests(t *testing.T) {
	if !xfstests.Asked() {
		return
	}
	Need(t)
	for _, kind := range xfstests.Kinds {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			plain := make(chan string, 1)
			go func() { plain <- runXfstests(t, kind, plainDisks(t)) }()
			ours := runXfstests(t, kind, vhostDisks(t))
			xfstests.Compare(t, <-plain, ours)
		})
	}
}

// testDisks are two disks of a kernel.
type testDisks struct {
	Options
	test, scratch string
}

// plainDisks are disks without udm. The kernel takes the first disk for that of its root.
func plainDisks(t *testing.T) testDisks {
	dir := t.TempDir()
	d := testDisks{test: "/dev/ubdb", scratch: "/dev/ubdc"}
	for _, name := range []string{"root", "test", "scratch"} {
		d.Disks = append(d.Disks, sparse(t, filepath.Join(dir, name)))
	}
	return d
}

func sparse(t *testing.T, path string) string {
	err := os.WriteFile(path, nil, 0o600)
	if err == nil {
		err = os.Truncate(path, xfstests.DiskLen)
	}
	if err != nil {
		t.Error(err)
	}
	return path
}

func vhostDisks(t *testing.T) testDisks {
	t.Helper()
	h, ctx := newUDM(t), context.Background()
	client := ctl.NewClient(h.root)
	t.Cleanup(client.Close)
	disk := sparse(t, filepath.Join(t.TempDir(), "disk"))
	_, err := client.Create(ctx, ctl.Create{Name: "test", Table: fmt.Sprintf("0 %d linear %s 0", xfstests.DiskLen/512, disk)})
	if err == nil {
		err = client.CreatePool(ctx, volume.PoolSpec{Name: "pool", Size: xfstests.DiskLen + 64<<20})
	}
	if err == nil {
		err = client.CreateVolume(ctx, ctl.CreateVolume{Pool: "pool", Name: "scratch", Size: xfstests.DiskLen})
	}
	d := testDisks{test: "/dev/vda", scratch: "/dev/vdb"}
	for _, name := range []string{"test", "scratch"} {
		path := filepath.Join(h.root, name+".sock")
		if err == nil {
			_, err = client.Export(ctx, ctl.Export{Ref: ctl.Ref{Name: name}, Path: path})
		}
		d.Args = append(d.Args, "virtio_uml.device="+path+":2")
	}
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// runXfstests returns the log.
func runXfstests(t *testing.T, kind string, d testDisks) string {
	d.Dir, d.Memory, d.Limit = t.TempDir(), 1024, 12*time.Hour
	d.Modules = []string{"virtio_blk", "loop"}
	d.Script = xfstests.Script(kind, d.test, d.scratch)
	r, err := Run(context.Background(), d.Options)
	if err != nil || r.Exit != 0 {
		t.Errorf("%s on %s: exit code %d, %v\n%s", kind, d.test, r.Exit, err, r.Output)
	}
	log, err := os.ReadFile(filepath.Join(d.Dir, "log"))
	if err != nil {
		t.Error(err)
	}
	t.Logf("%s on %s:\n%s", kind, d.test, log)
	return string(log)
}
