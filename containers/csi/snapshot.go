package csi

import (
	"context"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"udm/volume"
)

// CreateSnapshot implements csi.ControllerServer.
func (d *Driver) CreateSnapshot(ctx context.Context, r *csi.CreateSnapshotRequest) (*csi.CreateSnapshotResponse, error) {
	switch {
	case r.GetName() == "":
		return nil, status.Error(codes.InvalidArgument, "the name is missing")
	case r.GetSourceVolumeId() == "":
		return nil, status.Error(codes.InvalidArgument, "the id of the volume is missing")
	case !d.here(r.GetAccessibilityRequirements()):
		return nil, status.Errorf(codes.ResourceExhausted, "a snapshot is on the node of its volume, which is %s", d.Node)
	}
	name := device("snap", r.GetName())
	done, err := d.alone(name)
	if err != nil {
		return nil, err
	}
	defer done()
	o, rec, err := d.object(ctx, isSnapshot, name)
	if status.Code(err) == codes.NotFound {
		o, rec, err = d.takeSnapshot(ctx, name, r)
	}
	switch {
	case err != nil:
		return nil, inWords(err)
	case rec.Of != r.GetSourceVolumeId():
		return nil, status.Errorf(codes.AlreadyExists, "the snapshot %q is one of %s", r.GetName(), rec.Of)
	}
	return &csi.CreateSnapshotResponse{Snapshot: d.snapshot(o, rec)}, nil
}

func (d *Driver) takeSnapshot(ctx context.Context, name string, r *csi.CreateSnapshotRequest) (o volume.Object, rec *record, err error) {
	of, _, err := d.find(ctx, isVolume, r.GetSourceVolumeId())
	if err != nil {
		return o, nil, err
	}
	if err := d.pool.Room(ctx); err != nil {
		return o, nil, err
	}
	rec = &record{Kind: isSnapshot, Name: r.GetName(), Created: time.Now().UTC(), Of: r.GetSourceVolumeId()}
	err = d.frozen(ctx, []string{of.Name}, func() error {
		return d.client.Snapshot(ctx, volume.SnapshotSpec{Of: of.Name, Names: []string{name}, Labels: rec.label()})
	})
	if err != nil {
		return o, nil, err
	}
	return d.object(ctx, isSnapshot, name)
}

// reach is where a snapshot can be restored: with peers everywhere, which is said by
// saying nothing.
func (d *Driver) reach() []*csi.Topology {
	if len(d.Peers) > 0 {
		return nil
	}
	return d.topology()
}

func (d *Driver) snapshot(o volume.Object, r *record) *csi.Snapshot {
	return &csi.Snapshot{SnapshotId: d.id(o.Name), SourceVolumeId: r.Of, SizeBytes: int64(o.Bytes), CreationTime: timestamppb.New(r.Created),
		ReadyToUse: true, GroupSnapshotId: r.Group, AccessibleTopology: d.reach()}
}

// DeleteSnapshot implements csi.ControllerServer.
func (d *Driver) DeleteSnapshot(ctx context.Context, r *csi.DeleteSnapshotRequest) (*csi.DeleteSnapshotResponse, error) {
	if err := d.delete(ctx, isSnapshot, r.GetSnapshotId()); err != nil {
		return nil, err
	}
	return &csi.DeleteSnapshotResponse{}, nil
}

// GetSnapshot implements csi.ControllerServer.
func (d *Driver) GetSnapshot(ctx context.Context, r *csi.GetSnapshotRequest) (*csi.GetSnapshotResponse, error) {
	o, rec, err := d.find(ctx, isSnapshot, r.GetSnapshotId())
	if err != nil {
		return nil, err
	}
	return &csi.GetSnapshotResponse{Snapshot: d.snapshot(o, rec)}, nil
}

// ListSnapshots implements csi.ControllerServer.
func (d *Driver) ListSnapshots(ctx context.Context, r *csi.ListSnapshotsRequest) (*csi.ListSnapshotsResponse, error) {
	var list []*csi.ListSnapshotsResponse_Entry
	err := d.eachObject(ctx, isSnapshot, func(o volume.Object, rec *record) {
		s := d.snapshot(o, rec)
		if id := r.GetSnapshotId(); id != "" && id != s.SnapshotId {
			return
		}
		if of := r.GetSourceVolumeId(); of == "" || of == rec.Of {
			list = append(list, &csi.ListSnapshotsResponse_Entry{Snapshot: s})
		}
	})
	if err != nil {
		return nil, err
	}
	part, next, err := page(list, func(e *csi.ListSnapshotsResponse_Entry) string { return e.Snapshot.SnapshotId }, r.GetStartingToken(), r.GetMaxEntries())
	return &csi.ListSnapshotsResponse{Entries: part, NextToken: next}, err
}
