package fs

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"udm/test/need"
)

const (
	nobody = "65534"
	inside = "UDM_FS_TEST_USER" // set in the process that is the ordinary user
)

// TestOrdinaryUser runs the daemon and the programs on its files without any
// privilege but the right to open /dev/fuse. As root, it becomes such a user.
func TestOrdinaryUser(t *testing.T) {
	need.Tools(t, "mkfs.ext4", "debugfs", "e2fsck", "qemu-img", "dd", "cmp", "fallocate", "fusermount3")
	if os.Geteuid() == 0 {
		become(t)
		return
	}
	need.Open(t, "/dev/fuse")
	asUser(t)
}

// become runs this test again as nobody, who finds a /dev/fuse with the usual
// rights in a mount namespace of its own.
func become(t *testing.T) {
	need.Tools(t, "unshare", "setpriv")
	dir, err := os.MkdirTemp("", "udm-user")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	script := `set -e
		mount --make-rprivate /
		cp ` + self + ` test; cp ` + udm(t) + ` udm; chmod 755 . test udm
		mknod fuse c 10 229; chmod 666 fuse; mount --bind fuse /dev/fuse
		mkdir tmp; chown ` + nobody + ` tmp
		exec setpriv --reuid ` + nobody + ` --regid ` + nobody + ` --clear-groups --inh-caps=-all \
			env -C tmp TMPDIR=$PWD/tmp HOME=$PWD/tmp ` + inside + `=1 ../test -udm ../udm -test.run '^TestOrdinaryUser$' -test.v`
	cmd := exec.Command("unshare", "-m", "sh", "-c", script)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	t.Logf("as user %s:\n%s", nobody, out)
	if err != nil || !bytes.Contains(out, []byte("--- PASS: TestOrdinaryUser")) {
		t.Fatalf("failed: %v", err)
	}
}

func asUser(t *testing.T) {
	r := newRig(t)
	makeLinear(r)
	makeVolume(r)
	dir := t.TempDir()
	r.udm("mount", dir)
	for _, name := range []string{"disk", "volume"} {
		usePrograms(r, filepath.Join(dir, name))
	}
	refuseAttach(r)
	r.udm("unmount", dir)
	r.remove("disk")
}

// makeVolume makes a thin volume beside "disk".
func makeVolume(r *rig) {
	makePool(r)
	r.create("volume", devSize*perMiB, "thin /dev/mapper/pool 1")
}

// usePrograms puts a file system on a file, a file into it, and takes it out of a
// copy of a copy again.
func usePrograms(r *rig, file string) {
	r.Helper()
	text, copied, back := filepath.Join(r.dir, "text"), filepath.Join(r.dir, "copy.qcow2"), filepath.Join(r.dir, "back")
	r.must(os.WriteFile(text, bytes.Repeat([]byte("so what\n"), 100000), 0o600))
	for _, c := range [][]string{
		{"mkfs.ext4", "-q", "-F", file},
		{"debugfs", "-w", "-R", "write " + text + " text", file},
		{"e2fsck", "-fn", file},
		{"qemu-img", "convert", "-f", "raw", "-O", "qcow2", file, copied},
		{"qemu-img", "compare", "-f", "raw", "-F", "qcow2", file, copied},
		{"dd", "if=/dev/zero", "of=" + file, "bs=1M", "count=8", "oflag=direct", "conv=notrunc,fsync"},
		{"qemu-img", "convert", "-n", "-O", "raw", copied, file},
		{"e2fsck", "-fn", file},
		{"debugfs", "-R", "dump text " + back, file},
		{"cmp", text, back},
		{"dd", "if=" + file, "of=" + back, "bs=64k", "count=1000", "iflag=direct"},
		{"cmp", "-n", "65536000", file, back},
		{"fallocate", "--punch-hole", "--offset", "4096", "--length", "1M", file},
		{"fallocate", "--zero-range", "--offset", "4M", "--length", "1M", file},
		{"cmp", "-n", "1048576", "-i", "4096:0", file, "/dev/zero"},
		{"cmp", "-n", "1048576", "-i", "4194304:0", file, "/dev/zero"},
	} {
		sh(r.T, c[0], c[1:]...)
	}
	r.must(errors.Join(os.Remove(copied), os.Remove(back)))
}

// refuseAttach: without the right to use loop devices the error says so. A user
// in the group disk has it.
func refuseAttach(r *rig) {
	r.Helper()
	f, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err == nil {
		f.Close()
		return
	}
	out, err := try(udm(r.T), "--root", r.root, "attach", "disk")
	if err == nil || strings.Count(strings.TrimSpace(out), "\n") > 0 ||
		!strings.Contains(out, "/dev/loop-control") && !errors.Is(err, os.ErrNotExist) {
		r.Errorf("attaching without the right: %v, %q", err, out)
	}
	r.Log(strings.TrimSpace(out))
}
