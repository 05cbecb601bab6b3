package fs

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"udm/ctl"
	"udm/test/watchdog"
	"udm/test/xfstests"
	"udm/volume"
)

// TestXfstests runs tests of file systems twice: on loop devices of plain files, and on an
// attached device over a file and an attached thin volume. None that passes there fails here.
func TestXfstests(t *testing.T) {
	if !xfstests.Asked() {
		return
	}
	needs(t, "mkfs.ext4", "mkfs.xfs", "losetup", "unshare")
	for _, kind := range xfstests.Kinds {
		t.Run(kind, func(t *testing.T) {
			r := newRig(t)
			plain := make(chan string, 1)
			test, scratch := r.loop("plain-test"), r.loop("plain-scratch")
			go func() { plain <- runXfstests(t, kind, test, scratch) }()
			const mib = xfstests.DiskLen >> 20
			r.create("test", mib*perMiB, "linear %s 0", r.file("disk", mib))
			r.must(r.client.CreatePool(context.Background(), volume.PoolSpec{Name: "pool", Size: xfstests.DiskLen + 64<<20}))
			r.must(r.client.CreateVolume(context.Background(), ctl.CreateVolume{Pool: "pool", Name: "scratch", Size: xfstests.DiskLen}))
			ours := runXfstests(t, kind, r.attach("test"), r.attach("scratch"))
			xfstests.Compare(t, <-plain, ours)
		})
	}
}

// loop makes a file and a loop device of it.
func (r *rig) loop(name string) string {
	r.Helper()
	device := strings.TrimSpace(sh(r.T, "losetup", "--find", "--show", r.file(name, xfstests.DiskLen>>20)))
	r.Cleanup(func() { sh(r.T, "losetup", "--detach", device) })
	return device
}

// runXfstests returns the log. Mounts and processes are in namespaces that end with the script.
func runXfstests(t *testing.T, kind, test, scratch string) string {
	out := t.TempDir()
	cmd := exec.Command("unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "--mount-proc",
		"sh", "-c", xfstests.Script(kind, test, scratch))
	cmd.Env = append(os.Environ(), "OUT="+out)
	cmd.Stdout, cmd.Stderr = t.Output(), t.Output()
	if err := watchdog.Run(cmd, 12*time.Hour); err != nil {
		t.Errorf("%s on %s: %v", kind, test, err)
	}
	log, err := os.ReadFile(filepath.Join(out, "log"))
	if err != nil {
		t.Error(err)
	}
	t.Logf("%s on %s:\n%s", kind, test, log)
	return string(log)
}
