package csi

import (
	"context"
	"slices"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"udm/volume"
)

// A group has no device of its own: its snapshots have its id, and the ids of all volumes
// that it is of. One that lacks some was cut off, and does not count.

// GroupControllerGetCapabilities implements csi.GroupControllerServer.
func (d *Driver) GroupControllerGetCapabilities(context.Context, *csi.GroupControllerGetCapabilitiesRequest) (*csi.GroupControllerGetCapabilitiesResponse, error) {
	return &csi.GroupControllerGetCapabilitiesResponse{Capabilities: []*csi.GroupControllerServiceCapability{{
		Type: &csi.GroupControllerServiceCapability_Rpc{Rpc: &csi.GroupControllerServiceCapability_RPC{
			Type: csi.GroupControllerServiceCapability_RPC_CREATE_DELETE_GET_VOLUME_GROUP_SNAPSHOT}}}}}, nil
}

// group is the snapshots that there are of a group.
type group struct {
	id      string
	members []*csi.Snapshot
	all     []string // ids of the volumes
	created time.Time
}

func (g *group) whole() bool { return len(g.members) > 0 && len(g.members) == len(g.all) }

func (g *group) answer() *csi.VolumeGroupSnapshot {
	return &csi.VolumeGroupSnapshot{GroupSnapshotId: g.id, Snapshots: g.members, CreationTime: timestamppb.New(g.created), ReadyToUse: true}
}

func (d *Driver) group(ctx context.Context, id string) (*group, error) {
	g := &group{id: id}
	return g, d.eachObject(ctx, isSnapshot, func(o volume.Object, r *record) {
		if r.Group == id {
			g.members, g.all, g.created = append(g.members, d.snapshot(o, r)), r.All, r.Created
		}
	})
}

// CreateVolumeGroupSnapshot implements csi.GroupControllerServer. The file systems of all
// volumes are frozen while the snapshots are taken, one after the other.
func (d *Driver) CreateVolumeGroupSnapshot(ctx context.Context, r *csi.CreateVolumeGroupSnapshotRequest) (*csi.CreateVolumeGroupSnapshotResponse, error) {
	switch {
	case r.GetName() == "":
		return nil, status.Error(codes.InvalidArgument, "the name is missing")
	case len(r.GetSourceVolumeIds()) == 0:
		return nil, status.Error(codes.InvalidArgument, "the ids of the volumes are missing")
	}
	name := device("group", r.GetName())
	done, err := d.alone(name)
	if err != nil {
		return nil, err
	}
	defer done()
	all := slices.Sorted(slices.Values(r.GetSourceVolumeIds()))
	g, err := d.group(ctx, d.id(name))
	switch {
	case err != nil:
		return nil, inWords(err)
	case g.whole() && !slices.Equal(g.all, all):
		return nil, status.Errorf(codes.AlreadyExists, "the group %q is one of other volumes", r.GetName())
	case !g.whole():
		err = d.takeGroup(ctx, g, r.GetName(), all)
	}
	if err != nil {
		return nil, inWords(err)
	}
	return &csi.CreateVolumeGroupSnapshotResponse{GroupSnapshot: g.answer()}, nil
}

// takeGroup takes all snapshots of a group, after it has removed those of an earlier try,
// which are of another moment.
func (d *Driver) takeGroup(ctx context.Context, g *group, name string, all []string) error {
	var devices []string
	for _, id := range all {
		o, _, err := d.find(ctx, isVolume, id)
		if err != nil {
			return err
		}
		devices = append(devices, o.Name)
	}
	if err := d.dropGroup(ctx, g); err != nil {
		return err
	}
	if err := d.pool.Room(ctx); err != nil {
		return err
	}
	created := time.Now().UTC()
	err := d.frozen(ctx, devices, func() error {
		for i, of := range devices {
			rec := &record{Kind: isSnapshot, Name: name, Created: created, Of: all[i], Group: g.id, All: all}
			s := volume.SnapshotSpec{Of: of, Names: []string{device("snap", g.id+"/"+of)}, Labels: rec.label()}
			if err := d.client.Snapshot(ctx, s); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	now, err := d.group(ctx, g.id)
	*g = *now
	return err
}

func (d *Driver) dropGroup(ctx context.Context, g *group) error {
	for _, s := range g.members {
		if err := d.delete(ctx, isSnapshot, s.SnapshotId); err != nil {
			return err
		}
	}
	g.members = nil
	return nil
}

// DeleteVolumeGroupSnapshot implements csi.GroupControllerServer.
func (d *Driver) DeleteVolumeGroupSnapshot(ctx context.Context, r *csi.DeleteVolumeGroupSnapshotRequest) (*csi.DeleteVolumeGroupSnapshotResponse, error) {
	if r.GetGroupSnapshotId() == "" {
		return nil, status.Error(codes.InvalidArgument, "the id of the group is missing")
	}
	g, err := d.group(ctx, r.GetGroupSnapshotId())
	if err == nil {
		err = d.dropGroup(ctx, g)
	}
	return &csi.DeleteVolumeGroupSnapshotResponse{}, err
}

// GetVolumeGroupSnapshot implements csi.GroupControllerServer.
func (d *Driver) GetVolumeGroupSnapshot(ctx context.Context, r *csi.GetVolumeGroupSnapshotRequest) (*csi.GetVolumeGroupSnapshotResponse, error) {
	if r.GetGroupSnapshotId() == "" {
		return nil, status.Error(codes.InvalidArgument, "the id of the group is missing")
	}
	g, err := d.group(ctx, r.GetGroupSnapshotId())
	if err == nil && !g.whole() {
		err = status.Errorf(codes.NotFound, "there is no group %q", r.GetGroupSnapshotId())
	}
	if err != nil {
		return nil, err
	}
	return &csi.GetVolumeGroupSnapshotResponse{GroupSnapshot: g.answer()}, nil
}
