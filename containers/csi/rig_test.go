//go:build linux

package csi

import (
	"context"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"udm/containers/internal/rig"
	"udm/containers/pool"
	"udm/ctl"
)

var ctx = context.Background()

func TestMain(m *testing.M) { rig.Main(m) }

// node is a node: a daemon and its driver.
type node struct {
	*rig.Daemon
	*Driver
	t   testing.TB
	dir string // for what is staged and published
}

// newNode runs a daemon, by a program that runs others if one is given.
func newNode(t testing.TB, name string, by ...string) *node {
	t.Helper()
	rig.Needs(t, "mkfs.ext4", "mkfs.xfs", "resize2fs", "xfs_growfs")
	n := &node{Daemon: rig.StartDaemon(t, by...), t: t, dir: rig.Dir(t)}
	n.open(name, n.Client)
	t.Cleanup(func() {
		for _, at := range rig.Mounted(t, n.dir) {
			_ = unix.Unmount(at, unix.MNT_DETACH)
		}
		n.Driver.Close()
	})
	return n
}

// open opens a driver, instead of the one before, which is as good as killed: it has no
// state of its own.
func (n *node) open(name string, s ctl.Service) {
	if n.Driver != nil {
		n.Driver.Close()
	}
	n.Driver = New(Config{Name: "udm.csi", Version: "test", Node: name, Log: slog.New(slog.DiscardHandler), Most: 8,
		Pool: pool.Config{Name: "csi", First: 1 << 30, Most: 64 << 30}}, s)
}

// serve serves the driver, whichever it is at the time of a call, on a socket.
func (n *node) serve(before func()) (address string) {
	n.t.Helper()
	address = filepath.Join(n.dir, "csi.sock")
	l, err := net.Listen("unix", address)
	n.ok(err)
	inner := grpc.NewServer(grpc.UnaryInterceptor(func(ctx context.Context, r any, i *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
		before()
		return Lasting(ctx, r, i, next)
	}))
	csi.RegisterIdentityServer(inner, n)
	csi.RegisterControllerServer(inner, n)
	csi.RegisterGroupControllerServer(inner, n)
	csi.RegisterNodeServer(inner, n)
	csi.RegisterSnapshotMetadataServer(inner, metadata{d: n.Driver})
	done := make(chan error)
	go func() { done <- inner.Serve(l) }()
	n.t.Cleanup(func() { inner.Stop(); <-done })
	return address
}

func (n *node) ok(err error) {
	n.t.Helper()
	if err != nil {
		n.t.Fatal(err)
	}
}

// conn connects to the driver's socket.
func (n *node) conn() *grpc.ClientConn {
	n.t.Helper()
	c, err := grpc.NewClient("unix://"+n.serve(func() {}), grpc.WithTransportCredentials(insecure.NewCredentials()))
	n.ok(err)
	n.t.Cleanup(func() { c.Close() })
	return c
}

var (
	mounting = &csi.VolumeCapability{AccessType: &csi.VolumeCapability_Mount{Mount: &csi.VolumeCapability_MountVolume{}},
		AccessMode: &csi.VolumeCapability_AccessMode{Mode: csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER}}
	xfs = &csi.VolumeCapability{AccessType: &csi.VolumeCapability_Mount{Mount: &csi.VolumeCapability_MountVolume{FsType: "xfs"}},
		AccessMode: mounting.AccessMode}
	raw = &csi.VolumeCapability{AccessType: &csi.VolumeCapability_Block{Block: &csi.VolumeCapability_BlockVolume{}}, AccessMode: mounting.AccessMode}
)

func (n *node) create(name string, size int64, from *csi.VolumeContentSource) string {
	n.t.Helper()
	r, err := n.CreateVolume(ctx, &csi.CreateVolumeRequest{Name: name, CapacityRange: &csi.CapacityRange{RequiredBytes: size},
		VolumeCapabilities: []*csi.VolumeCapability{mounting}, VolumeContentSource: from})
	n.ok(err)
	return r.Volume.VolumeId
}

func (n *node) take(name, volume string) string {
	n.t.Helper()
	r, err := n.CreateSnapshot(ctx, &csi.CreateSnapshotRequest{Name: name, SourceVolumeId: volume})
	n.ok(err)
	return r.Snapshot.SnapshotId
}

func ofSnapshot(id string) *csi.VolumeContentSource {
	return &csi.VolumeContentSource{Type: &csi.VolumeContentSource_Snapshot{Snapshot: &csi.VolumeContentSource_SnapshotSource{SnapshotId: id}}}
}

func ofVolume(id string) *csi.VolumeContentSource {
	return &csi.VolumeContentSource{Type: &csi.VolumeContentSource_Volume{Volume: &csi.VolumeContentSource_VolumeSource{VolumeId: id}}}
}

// publish stages and publishes a volume and returns where it is.
func (n *node) publish(id string, c *csi.VolumeCapability) string {
	n.t.Helper()
	staging, target := filepath.Join(n.dir, "stage-"+id), filepath.Join(n.dir, "pods", id)
	n.ok(os.MkdirAll(filepath.Dir(target), 0o700))
	_, err := n.NodeStageVolume(ctx, &csi.NodeStageVolumeRequest{VolumeId: id, StagingTargetPath: staging, VolumeCapability: c})
	n.ok(err)
	return n.publishAt(id, target, c)
}

// publishAt publishes a staged volume.
func (n *node) publishAt(id, target string, c *csi.VolumeCapability) string {
	n.t.Helper()
	_, err := n.NodePublishVolume(ctx, &csi.NodePublishVolumeRequest{VolumeId: id, StagingTargetPath: filepath.Join(n.dir, "stage-"+id), TargetPath: target, VolumeCapability: c})
	n.ok(err)
	return target
}

func (n *node) unpublish(id string) {
	n.t.Helper()
	_, err := n.NodeUnpublishVolume(ctx, &csi.NodeUnpublishVolumeRequest{VolumeId: id, TargetPath: filepath.Join(n.dir, "pods", id)})
	n.ok(err)
	_, err = n.NodeUnstageVolume(ctx, &csi.NodeUnstageVolumeRequest{VolumeId: id, StagingTargetPath: filepath.Join(n.dir, "stage-"+id)})
	n.ok(err)
}
