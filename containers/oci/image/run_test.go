package main

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"udm/containers/internal/rig"
)

func TestMain(m *testing.M) { rig.Main(m) }

// container is an unpacked image with the directories of the machine that the manifests
// give to a container.
type container struct {
	testing.TB
	root string
}

func unpacked(t testing.TB) *container {
	t.Helper()
	dir := rig.Dir(t)
	bin := filepath.Dir(rig.Build(t, "..", "udm/cmd/udm"))
	rig.Build(t, ".", "udm/containers/cmd/udm-csi")
	rig.Build(t, ".", "udm/containers/cmd/udm-snapshotter")
	c := &container{t, filepath.Join(dir, "root")}
	out := filepath.Join(dir, "image.tar")
	c.ok(write(out, "localhost/udm:test", bin))
	image, err := os.ReadFile(out)
	c.ok(err)
	unpack(t, image, c.root)
	for _, name := range []string{"/dev", "/proc", "/sys"} {
		at := filepath.Join(c.root, name)
		c.ok(os.MkdirAll(at, 0o755))
		c.ok(unix.Mount(name, at, "", unix.MS_BIND, ""))
		// Read-only, so that nothing that cleans up can harm the machine.
		c.ok(unix.Mount("", at, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""))
	}
	c.ok(os.MkdirAll(filepath.Join(c.root, "tmp"), 0o755))
	return c
}

func (c *container) ok(err error) {
	c.Helper()
	if err != nil {
		c.Fatal(err)
	}
}

func (c *container) start(args ...string) *rig.Process {
	c.Helper()
	return rig.Start(c, "msg=ready", append([]string{"chroot", c.root}, args...)...)
}

// The programs of the image, with nothing of this machine but /dev, /proc and /sys, make a
// volume, format, mount and expand it, and show a snapshotter's files.
func TestPrograms(t *testing.T) {
	rig.Needs(t, "chroot")
	c := unpacked(t)
	for _, args := range [][]string{{"/usr/bin/udm", "--version"}, {"/usr/bin/udm-csi", "-h"}, {"/usr/bin/udm-snapshotter", "-h"}} {
		cmd := exec.Command(args[0], args[1:]...)
		cmd.Path, cmd.Dir, cmd.SysProcAttr = args[0], "/", &syscall.SysProcAttr{Chroot: c.root}
		if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "udm") {
			t.Errorf("%v: %v: %s", args, err, out)
		}
	}
	c.start("/usr/bin/udm", "keep", "--root", "/r")
	c.start("/usr/bin/udm", "daemon", "--root", "/r")
	c.start("/usr/bin/udm-csi", "--root", "/r", "--socket", "/c.sock", "--node", "n", "--pool-size", "1G")
	c.start("/usr/bin/udm-snapshotter", "--root", "/r", "--socket", "/s.sock", "--files", "/files", "--pool-size", "1G")
	conn, err := grpc.NewClient("unix://"+filepath.Join(c.root, "c.sock"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	c.ok(err)
	defer conn.Close()
	for _, fs := range []string{"ext4", "xfs"} {
		c.volume(csi.NewControllerClient(conn), csi.NewNodeClient(conn), fs)
	}
}

// volume is the life of a volume.
func (c *container) volume(controller csi.ControllerClient, node csi.NodeClient, fs string) {
	c.Helper()
	ctx := context.Background()
	capability := &csi.VolumeCapability{AccessType: &csi.VolumeCapability_Mount{Mount: &csi.VolumeCapability_MountVolume{FsType: fs}},
		AccessMode: &csi.VolumeCapability_AccessMode{Mode: csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER}}
	made, err := controller.CreateVolume(ctx, &csi.CreateVolumeRequest{Name: fs, VolumeCapabilities: []*csi.VolumeCapability{capability}})
	c.ok(err)
	id, stage, target := made.Volume.VolumeId, "/tmp/stage-"+fs, "/tmp/pod-"+fs
	publish := func() {
		c.Helper()
		_, err := node.NodeStageVolume(ctx, &csi.NodeStageVolumeRequest{VolumeId: id, StagingTargetPath: stage, VolumeCapability: capability})
		c.ok(err)
		_, err = node.NodePublishVolume(ctx, &csi.NodePublishVolumeRequest{VolumeId: id, StagingTargetPath: stage, TargetPath: target, VolumeCapability: capability})
		c.ok(err)
	}
	unpublish := func() {
		c.Helper()
		_, err := node.NodeUnpublishVolume(ctx, &csi.NodeUnpublishVolumeRequest{VolumeId: id, TargetPath: target})
		c.ok(err)
		_, err = node.NodeUnstageVolume(ctx, &csi.NodeUnstageVolumeRequest{VolumeId: id, StagingTargetPath: stage})
		c.ok(err)
	}
	publish()
	file := filepath.Join(c.root, target, "f")
	c.ok(os.WriteFile(file, []byte(fs), 0o600))
	unpublish()
	_, err = controller.ControllerExpandVolume(ctx, &csi.ControllerExpandVolumeRequest{VolumeId: id, CapacityRange: &csi.CapacityRange{RequiredBytes: 2 << 30}, VolumeCapability: capability})
	c.ok(err)
	publish()
	if text, err := os.ReadFile(file); err != nil || string(text) != fs {
		c.Errorf("%q, %v", text, err)
	}
	if st := (unix.Statfs_t{}); unix.Statfs(filepath.Dir(file), &st) != nil || int64(st.Blocks)*st.Bsize < 3<<29 {
		c.Errorf("%s has %d blocks of %d after the expansion", fs, st.Blocks, st.Bsize)
	}
	unpublish()
	_, err = controller.DeleteVolume(ctx, &csi.DeleteVolumeRequest{VolumeId: id})
	c.ok(err)
}
