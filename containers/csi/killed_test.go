//go:build linux

package csi

import (
	"flag"
	"path/filepath"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"udm/containers/internal/rig"
)

var moments = flag.Bool("moments", false, "kill the daemon at every command and each moment of it, not one moment each")

// life is calls about some volumes, each with what the ones before have answered.
var life = []func(n *node, ids map[string]string) (proto.Message, error){
	createCall("v", "", 1<<30),
	func(n *node, ids map[string]string) (proto.Message, error) {
		r, err := n.CreateSnapshot(ctx, &csi.CreateSnapshotRequest{Name: "s", SourceVolumeId: ids["v"]})
		ids["s"] = r.GetSnapshot().GetSnapshotId()
		return r, err
	},
	createCall("w", "s", 2<<30),
	createCall("x", "v", 1<<30),
	func(n *node, ids map[string]string) (proto.Message, error) {
		return n.ControllerExpandVolume(ctx, &csi.ControllerExpandVolumeRequest{VolumeId: ids["v"], CapacityRange: &csi.CapacityRange{RequiredBytes: 3 << 30}, VolumeCapability: mounting})
	},
	func(n *node, ids map[string]string) (proto.Message, error) {
		r, err := n.CreateVolumeGroupSnapshot(ctx, &csi.CreateVolumeGroupSnapshotRequest{Name: "g", SourceVolumeIds: []string{ids["v"], ids["x"]}})
		ids["g"] = r.GetGroupSnapshot().GetGroupSnapshotId()
		return r, err
	},
	func(n *node, ids map[string]string) (proto.Message, error) {
		return n.ControllerPublishVolume(ctx, &csi.ControllerPublishVolumeRequest{VolumeId: ids["w"], NodeId: n.Node, VolumeCapability: mounting})
	},
	func(n *node, ids map[string]string) (proto.Message, error) {
		return n.NodeStageVolume(ctx, &csi.NodeStageVolumeRequest{VolumeId: ids["w"], StagingTargetPath: filepath.Join(n.dir, "w"), VolumeCapability: mounting})
	},
	func(n *node, ids map[string]string) (proto.Message, error) {
		return n.NodeUnstageVolume(ctx, &csi.NodeUnstageVolumeRequest{VolumeId: ids["w"], StagingTargetPath: filepath.Join(n.dir, "w")})
	},
	func(n *node, ids map[string]string) (proto.Message, error) {
		return n.ControllerUnpublishVolume(ctx, &csi.ControllerUnpublishVolumeRequest{VolumeId: ids["w"], NodeId: n.Node})
	},
	func(n *node, ids map[string]string) (proto.Message, error) {
		return n.DeleteVolumeGroupSnapshot(ctx, &csi.DeleteVolumeGroupSnapshotRequest{GroupSnapshotId: ids["g"]})
	},
	deleteCall("v"), deleteCall("w"), deleteCall("x"),
	func(n *node, ids map[string]string) (proto.Message, error) {
		return n.DeleteSnapshot(ctx, &csi.DeleteSnapshotRequest{SnapshotId: ids["s"]})
	},
}

func createCall(name, from string, size int64) func(n *node, ids map[string]string) (proto.Message, error) {
	return func(n *node, ids map[string]string) (proto.Message, error) {
		var source *csi.VolumeContentSource
		switch {
		case from == "s":
			source = ofSnapshot(ids[from])
		case from != "":
			source = ofVolume(ids[from])
		}
		r, err := n.CreateVolume(ctx, &csi.CreateVolumeRequest{Name: name, CapacityRange: &csi.CapacityRange{RequiredBytes: size},
			VolumeCapabilities: []*csi.VolumeCapability{mounting}, VolumeContentSource: source, MutableParameters: map[string]string{"readIOPS": "5000"}})
		ids[name] = r.GetVolume().GetVolumeId()
		return r, err
	}
}

func deleteCall(name string) func(n *node, ids map[string]string) (proto.Message, error) {
	return func(n *node, ids map[string]string) (proto.Message, error) {
		return n.DeleteVolume(ctx, &csi.DeleteVolumeRequest{VolumeId: ids[name]})
	}
}

// TestKilled kills the daemon and the driver at each command. The same call, made again
// to the next ones, then answers what it would have; and so does a call that is repeated
// although it was answered. In the end nothing is left.
func TestKilled(t *testing.T) {
	n := newNode(t, "node-1")
	for at := 0; ; at++ {
		killed := true
		for m := range rig.Moments {
			if *moments || m == rig.Moment(at%int(rig.Moments)) {
				killed = n.killedAt(at, m)
			}
		}
		if !killed {
			return
		}
	}
}

func (n *node) killedAt(at int, m rig.Moment) bool {
	k := &rig.Killer{Service: n.Client, Daemon: n.Daemon, At: at, Moment: m}
	n.open("node-1", k)
	ids := map[string]string{}
	for i, call := range life {
		first, again := n.insist(k, call, ids), n.insist(k, call, ids)
		if !proto.Equal(first, again) {
			n.t.Errorf("killed at %d, %d: call %d: %v, then %v", at, m, i, first, again)
		}
	}
	if left := n.Objects(n.t, devicePrefix); len(left) > 0 {
		n.t.Errorf("killed at %d, %d: %v are left", at, m, left)
	}
	if ms := rig.Mounted(n.t, n.dir); len(ms) > 0 {
		n.t.Errorf("killed at %d, %d: mounted: %v", at, m, ms)
		for _, at := range ms {
			_ = unix.Unmount(at, unix.MNT_DETACH)
		}
	}
	orphans, err := n.Client.Orphans(ctx)
	if n.ok(err); len(orphans) > 0 {
		n.t.Errorf("killed at %d, %d: orphans %v", at, m, orphans)
	}
	return k.Killed()
}

// insist makes a call, and makes it again if the daemon was killed meanwhile.
func (n *node) insist(k *rig.Killer, call func(n *node, ids map[string]string) (proto.Message, error), ids map[string]string) proto.Message {
	n.t.Helper()
	was := k.Killed()
	answer, err := call(n, ids)
	if k.Killed() && !was {
		n.Start()
		n.open("node-1", n.Client)
		answer, err = call(n, ids)
	}
	n.ok(err)
	return answer
}
