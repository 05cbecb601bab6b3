package csi

import (
	"context"
	"errors"
	"os"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"udm/containers/filesystem"
	"udm/ctl"
	"udm/volume"
)

// NodeGetCapabilities implements csi.NodeServer.
func (d *Driver) NodeGetCapabilities(context.Context, *csi.NodeGetCapabilitiesRequest) (*csi.NodeGetCapabilitiesResponse, error) {
	r := &csi.NodeGetCapabilitiesResponse{}
	for _, t := range []csi.NodeServiceCapability_RPC_Type{
		csi.NodeServiceCapability_RPC_STAGE_UNSTAGE_VOLUME,
		csi.NodeServiceCapability_RPC_GET_VOLUME_STATS,
		csi.NodeServiceCapability_RPC_EXPAND_VOLUME,
		csi.NodeServiceCapability_RPC_SINGLE_NODE_MULTI_WRITER,
		csi.NodeServiceCapability_RPC_GET_VOLUME_HEALTH,
		csi.NodeServiceCapability_RPC_GET_STORAGE_HEALTH,
	} {
		r.Capabilities = append(r.Capabilities, &csi.NodeServiceCapability{Type: &csi.NodeServiceCapability_Rpc{Rpc: &csi.NodeServiceCapability_RPC{Type: t}}})
	}
	return r, nil
}

// NodeGetInfo implements csi.NodeServer.
func (d *Driver) NodeGetInfo(context.Context, *csi.NodeGetInfoRequest) (*csi.NodeGetInfoResponse, error) {
	return &csi.NodeGetInfoResponse{NodeId: d.Node, MaxVolumesPerNode: d.Most, AccessibleTopology: d.topology()[0]}, nil
}

// NodeStageVolume implements csi.NodeServer.
func (d *Driver) NodeStageVolume(ctx context.Context, r *csi.NodeStageVolumeRequest) (*csi.NodeStageVolumeResponse, error) {
	if r.GetVolumeId() != "" && r.GetStagingTargetPath() == "" {
		return nil, status.Error(codes.InvalidArgument, "the staging path is missing")
	}
	o, _, err := d.find(ctx, isVolume, r.GetVolumeId())
	if r.GetVolumeId() != "" && r.GetVolumeCapability() == nil {
		err = status.Error(codes.InvalidArgument, "the volume capability is missing")
	}
	if err != nil {
		return nil, err
	}
	done, err := d.alone(o.Name)
	if err != nil {
		return nil, err
	}
	defer done()
	a, err := d.client.Attach(ctx, ctl.Attach{Ref: ctl.Ref{Name: o.Name}})
	if err == nil && r.GetVolumeCapability().GetBlock() == nil {
		err = mountVolume(ctx, a.Path, r.GetStagingTargetPath(), r.GetVolumeCapability().GetMount(), nil)
	}
	if err != nil {
		return nil, inWords(err)
	}
	return &csi.NodeStageVolumeResponse{}, nil
}

// mountVolume mounts a device, which gets a file system if it is empty, and lets the file
// system be as large as the device.
func mountVolume(ctx context.Context, device, at string, c *csi.VolumeCapability_MountVolume, options []string) error {
	want, err := filesystem.Parse(c.GetFsType())
	if err != nil {
		return status.Error(codes.InvalidArgument, err.Error())
	}
	has, err := filesystem.Of(device)
	switch {
	case err != nil:
		return err
	case has == "":
		has = want
		err = want.Make(ctx, device)
	case has != want && c.GetFsType() != "":
		err = status.Errorf(codes.FailedPrecondition, "the volume has the file system %s, not %s", has, want)
	}
	if err != nil {
		return err
	}
	m, err := mountAt(at)
	if err == nil && m == nil {
		err = has.GrowUnmounted(ctx, device)
	}
	if err != nil {
		return err
	}
	options = append(append(has.Options(), options...), c.GetMountFlags()...)
	if err := mountDevice(device, at, string(has), options); err != nil || has != filesystem.XFS {
		return err
	}
	return has.Grow(ctx, device, at)
}

// NodeUnstageVolume implements csi.NodeServer.
func (d *Driver) NodeUnstageVolume(ctx context.Context, r *csi.NodeUnstageVolumeRequest) (*csi.NodeUnstageVolumeResponse, error) {
	switch {
	case r.GetVolumeId() == "":
		return nil, status.Error(codes.InvalidArgument, "the id of the volume is missing")
	case r.GetStagingTargetPath() == "":
		return nil, status.Error(codes.InvalidArgument, "the staging path is missing")
	}
	name, ok := d.local(r.GetVolumeId())
	if !ok {
		return nil, status.Errorf(codes.NotFound, "there is no volume %q on the node %s", r.GetVolumeId(), d.Node)
	}
	done, err := d.alone(name)
	if err != nil {
		return nil, err
	}
	defer done()
	m, err := mountAt(r.GetStagingTargetPath())
	if err == nil && m != nil {
		err = unix.Unmount(r.GetStagingTargetPath(), 0) // the directory is not the driver's
	}
	if err == nil {
		err = d.client.Detach(ctx, ctl.Ref{Name: name})
	}
	if err != nil && !absent(err) {
		return nil, inWords(err)
	}
	return &csi.NodeUnstageVolumeResponse{}, nil
}

// NodePublishVolume implements csi.NodeServer.
func (d *Driver) NodePublishVolume(ctx context.Context, r *csi.NodePublishVolumeRequest) (*csi.NodePublishVolumeResponse, error) {
	switch {
	case r.GetVolumeId() == "":
		return nil, status.Error(codes.InvalidArgument, "the id of the volume is missing")
	case r.GetTargetPath() == "":
		return nil, status.Error(codes.InvalidArgument, "the target path is missing")
	}
	if err := checkCapability(r.GetVolumeCapability()); err != nil {
		return nil, err
	}
	var err error
	if r.GetVolumeContext()["csi.storage.k8s.io/ephemeral"] == "true" {
		err = d.publishEphemeral(ctx, r)
	} else {
		err = d.publish(ctx, r)
	}
	if err != nil {
		return nil, inWords(err)
	}
	return &csi.NodePublishVolumeResponse{}, nil
}

func (d *Driver) publish(ctx context.Context, r *csi.NodePublishVolumeRequest) error {
	o, _, err := d.find(ctx, isVolume, r.GetVolumeId())
	if err != nil {
		return err
	}
	done, err := d.alone(o.Name)
	if err != nil {
		return err
	}
	defer done()
	if r.GetVolumeCapability().GetBlock() != nil {
		a, err := d.client.Attach(ctx, ctl.Attach{Ref: ctl.Ref{Name: o.Name}})
		if err != nil {
			return err
		}
		if err := makeFile(r.GetTargetPath()); err != nil {
			return err
		}
		return bind(a.Path, r.GetTargetPath(), r.GetReadonly())
	}
	if r.GetStagingTargetPath() == "" {
		return status.Error(codes.FailedPrecondition, "the staging path is missing")
	}
	m, err := mountAt(r.GetStagingTargetPath())
	switch {
	case err != nil:
		return err
	case m == nil:
		return status.Errorf(codes.FailedPrecondition, "%s is not staged at %s", r.GetVolumeId(), r.GetStagingTargetPath())
	}
	if r.GetVolumeCapability().GetAccessMode().GetMode() == csi.VolumeCapability_AccessMode_SINGLE_NODE_SINGLE_WRITER {
		if err := onlyAt(m.number, r.GetStagingTargetPath(), r.GetTargetPath()); err != nil {
			return err
		}
	}
	if err := d.stageAgain(ctx, o.Name, m, r); err != nil {
		return err
	}
	if err := os.MkdirAll(r.GetTargetPath(), 0o750); err != nil {
		return err
	}
	return bind(r.GetStagingTargetPath(), r.GetTargetPath(), r.GetReadonly())
}

// stageAgain stages a volume anew whose device is no more, after the death of a daemon: the
// kubelet, which has had it staged, would not ask for that.
func (d *Driver) stageAgain(ctx context.Context, name string, was *mounted, r *csi.NodePublishVolumeRequest) error {
	a, err := d.client.Attach(ctx, ctl.Attach{Ref: ctl.Ref{Name: name}})
	if err != nil {
		return err
	}
	if number, err := numberOf(a.Path); err != nil || number == was.number {
		return err
	}
	if err := unix.Unmount(was.at, unix.MNT_DETACH); err != nil {
		return &os.PathError{Op: "unmount", Path: was.at, Err: err}
	}
	return mountVolume(ctx, a.Path, was.at, r.GetVolumeCapability().GetMount(), nil)
}

// onlyAt refuses a device that is mounted elsewhere, too.
func onlyAt(number string, paths ...string) error {
	ms, err := mounts()
	for _, m := range ms {
		if m.number == number && m.at != paths[0] && m.at != paths[1] {
			return status.Errorf(codes.FailedPrecondition, "the volume is published at %s, and may be at one path only", m.at)
		}
	}
	return err
}

func makeFile(path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDONLY, 0o640)
	if err != nil {
		return err
	}
	return f.Close()
}

// NodeUnpublishVolume implements csi.NodeServer. An ephemeral volume goes.
func (d *Driver) NodeUnpublishVolume(ctx context.Context, r *csi.NodeUnpublishVolumeRequest) (*csi.NodeUnpublishVolumeResponse, error) {
	switch {
	case r.GetVolumeId() == "":
		return nil, status.Error(codes.InvalidArgument, "the id of the volume is missing")
	case r.GetTargetPath() == "":
		return nil, status.Error(codes.InvalidArgument, "the target path is missing")
	}
	name, ok := d.local(r.GetVolumeId())
	if !ok {
		name = ephemeral(r.GetVolumeId())
	}
	done, err := d.alone(name)
	if err != nil {
		return nil, err
	}
	defer done()
	_, rec, err := d.object(ctx, isVolume, name)
	if err != nil && (status.Code(err) != codes.NotFound || ok) {
		return nil, err
	}
	if !ok && err != nil && !exists(r.GetTargetPath()) {
		return nil, status.Errorf(codes.NotFound, "there is no volume %q on the node %s", r.GetVolumeId(), d.Node)
	}
	if err = unmount(r.GetTargetPath()); err == nil && rec != nil && rec.Ephemeral {
		err = d.remove(ctx, name)
	}
	if err != nil {
		return nil, inWords(err)
	}
	return &csi.NodeUnpublishVolumeResponse{}, nil
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return !errors.Is(err, os.ErrNotExist)
}

// ephemeral is the device of a volume that lives as long as its pod: the kubelet makes
// up its id.
func ephemeral(id string) string { return device("eph", id) }

func (d *Driver) publishEphemeral(ctx context.Context, r *csi.NodePublishVolumeRequest) error {
	if r.GetVolumeCapability().GetMount() == nil {
		return status.Error(codes.InvalidArgument, "an ephemeral volume has a file system")
	}
	name := ephemeral(r.GetVolumeId())
	done, err := d.alone(name)
	if err != nil {
		return err
	}
	defer done()
	size, err := ephemeralSize(r.GetVolumeContext()["size"])
	if err != nil {
		return err
	}
	if _, _, err = d.object(ctx, isVolume, name); status.Code(err) == codes.NotFound {
		err = d.emptyVolume(ctx, name, &record{Kind: isVolume, Name: r.GetVolumeId(), Created: time.Now().UTC(), Bytes: size, Ephemeral: true})
	}
	if err != nil {
		return err
	}
	a, err := d.client.Attach(ctx, ctl.Attach{Ref: ctl.Ref{Name: name}})
	if err != nil {
		return err
	}
	var options []string
	if r.GetReadonly() {
		options = []string{"ro"}
	}
	return mountVolume(ctx, a.Path, r.GetTargetPath(), r.GetVolumeCapability().GetMount(), options)
}

// NodeExpandVolume implements csi.NodeServer.
func (d *Driver) NodeExpandVolume(ctx context.Context, r *csi.NodeExpandVolumeRequest) (*csi.NodeExpandVolumeResponse, error) {
	o, rec, err := d.find(ctx, isVolume, r.GetVolumeId())
	if err == nil {
		err = checkPath(r.GetVolumePath())
	}
	if err != nil {
		return nil, err
	}
	if r.GetCapacityRange().GetRequiredBytes() > rec.Bytes {
		if _, err := d.expand(ctx, o.Name, rec, r.GetCapacityRange()); err != nil {
			return nil, inWords(err)
		}
	}
	a, err := d.client.Attach(ctx, ctl.Attach{Ref: ctl.Ref{Name: o.Name}})
	if err != nil {
		return nil, inWords(err)
	}
	if r.GetVolumeCapability().GetBlock() == nil {
		if err := growAt(ctx, a.Path, r.GetVolumePath()); err != nil {
			return nil, inWords(err)
		}
	}
	return &csi.NodeExpandVolumeResponse{CapacityBytes: rec.Bytes}, nil
}

// growAt grows the file system of a device that is mounted. Where it is not, which is also
// after the death of a daemon, it grows when it is staged.
func growAt(ctx context.Context, device, at string) error {
	m, err := mountAt(at)
	if err != nil || m == nil {
		return err
	}
	if number, err := numberOf(device); err != nil || number != m.number {
		return err
	}
	has, err := filesystem.Of(device)
	if err != nil || has == "" {
		return err
	}
	return has.Grow(ctx, device, at)
}

func checkPath(path string) error {
	if path == "" {
		return status.Error(codes.InvalidArgument, "the path of the volume is missing")
	}
	if !exists(path) {
		return status.Errorf(codes.NotFound, "there is no volume at %s", path)
	}
	return nil
}

// NodeGetVolumeStats implements csi.NodeServer.
func (d *Driver) NodeGetVolumeStats(ctx context.Context, r *csi.NodeGetVolumeStatsRequest) (*csi.NodeGetVolumeStatsResponse, error) {
	if r.GetVolumeId() != "" && r.GetVolumePath() == "" {
		return nil, status.Error(codes.InvalidArgument, "the path of the volume is missing")
	}
	o, _, err := d.find(ctx, isVolume, r.GetVolumeId())
	if err == nil {
		err = checkPath(r.GetVolumePath())
	}
	if err != nil {
		return nil, err
	}
	var st unix.Stat_t
	if err := unix.Stat(r.GetVolumePath(), &st); err != nil {
		return nil, status.Errorf(codes.Internal, "%s: %v", r.GetVolumePath(), err)
	}
	if st.Mode&unix.S_IFMT == unix.S_IFBLK {
		return &csi.NodeGetVolumeStatsResponse{Usage: []*csi.VolumeUsage{blockUsage(o)}}, nil
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(r.GetVolumePath(), &fs); err != nil {
		return nil, status.Errorf(codes.Internal, "%s: %v", r.GetVolumePath(), err)
	}
	return &csi.NodeGetVolumeStatsResponse{Usage: []*csi.VolumeUsage{
		{Unit: csi.VolumeUsage_BYTES, Total: int64(fs.Blocks) * fs.Bsize, Available: int64(fs.Bavail) * fs.Bsize, Used: int64(fs.Blocks-fs.Bfree) * fs.Bsize},
		{Unit: csi.VolumeUsage_INODES, Total: int64(fs.Files), Available: int64(fs.Ffree), Used: int64(fs.Files - fs.Ffree)},
	}}, nil
}

// blockUsage is the usage of a raw block volume: what it takes of its pool.
func blockUsage(o volume.Object) *csi.VolumeUsage {
	used := int64(o.Own + o.Shared)
	return &csi.VolumeUsage{Unit: csi.VolumeUsage_BYTES, Total: int64(o.Bytes), Used: used, Available: int64(o.Bytes) - used}
}

// NodeGetVolumeHealth implements csi.NodeServer.
func (d *Driver) NodeGetVolumeHealth(ctx context.Context, r *csi.NodeGetVolumeHealthRequest) (*csi.NodeGetVolumeHealthResponse, error) {
	o, _, err := d.find(ctx, isVolume, r.GetVolumeId())
	if err != nil {
		return nil, err
	}
	return &csi.NodeGetVolumeHealthResponse{VolumeHealth: d.health(ctx, o)}, nil
}

// NodeGetStorageHealth implements csi.NodeServer: it tells when the daemon does not run,
// or the pool is full.
func (d *Driver) NodeGetStorageHealth(ctx context.Context, _ *csi.NodeGetStorageHealthRequest) (*csi.NodeGetStorageHealthResponse, error) {
	r := &csi.NodeGetStorageHealthResponse{}
	add := func(s csi.StorageHealthErrorType, reason string, err error) {
		r.BackendHealth = append(r.BackendHealth, &csi.NodeGetStorageHealthResponse_StorageBackendHealth{Status: s, Reason: reason, Message: err.Error()})
	}
	if _, err := d.client.Version(ctx); err != nil {
		add(csi.StorageHealthErrorType_STORAGE_UNREACHABLE, "DaemonDown", err)
	} else if err := d.pool.Room(ctx); err != nil && !absent(err) {
		add(csi.StorageHealthErrorType_STORAGE_DEGRADED, "PoolFull", err)
	}
	return r, nil
}
