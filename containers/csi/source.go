package csi

import (
	"context"
	"io"
	"strings"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"udm/volume"
)

// Fetch opens the stream of a snapshot at the driver of another node.
type Fetch func(ctx context.Context, address, device string) (io.ReadCloser, error)

// source is what a volume is made from.
type source struct {
	id     string // "": nothing
	device string // on this node; "": nothing, or it is elsewhere
	bytes  int64
	node   string // another one, where it is
	remote string // device there
	drop   string // device that is not needed once the volume is there
}

// source finds the content source of a request.
func (d *Driver) source(ctx context.Context, r *csi.VolumeContentSource) (s source, err error) {
	kind := isVolume
	switch {
	case r == nil:
		return s, nil
	case r.GetSnapshot() != nil:
		s.id, kind = r.GetSnapshot().GetSnapshotId(), isSnapshot
	case r.GetVolume() != nil:
		s.id = r.GetVolume().GetVolumeId()
	default:
		return s, status.Error(codes.InvalidArgument, "the kind of content source is not known")
	}
	remote, node, _ := strings.Cut(s.id, "@")
	if kind == isSnapshot && node != d.Node && d.Peers[node] != "" && strings.HasPrefix(remote, devicePrefix) {
		s.node, s.remote, s.drop = node, remote, device("from", s.id)
		return s, nil
	}
	o, _, err := d.find(ctx, kind, s.id)
	s.device, s.bytes = o.Name, int64(o.Bytes)
	return s, err
}

// get brings a snapshot of another node here, unless it is.
func (d *Driver) get(ctx context.Context, s *source) error {
	if s.node == "" {
		return nil
	}
	o, _, err := d.object(ctx, isFrom, s.drop)
	if status.Code(err) == codes.NotFound {
		if err = d.receive(ctx, *s); err == nil {
			o, _, err = d.object(ctx, isFrom, s.drop)
		}
	}
	s.device, s.bytes = o.Name, int64(o.Bytes)
	return err
}

func (d *Driver) receive(ctx context.Context, s source) (err error) {
	if err := d.pool.Ensure(ctx); err != nil {
		return err
	}
	if err := d.pool.Room(ctx); err != nil {
		return err
	}
	if d.Fetch == nil {
		return status.Errorf(codes.FailedPrecondition, "%s is on the node %s, and this driver has no certificates for it", s.id, s.node)
	}
	stream, err := d.Fetch(ctx, d.Peers[s.node], s.remote)
	if err != nil {
		return status.Errorf(codes.Unavailable, "%s cannot be had from the node %s: %v", s.id, s.node, err)
	}
	defer stream.Close()
	rec := &record{Kind: isFrom, Name: s.id, Created: time.Now().UTC()}
	_, err = d.client.Receive(ctx, volume.ReceiveSpec{Name: s.drop, Pool: d.Config.Pool.Name, Labels: rec.label()}, stream)
	return err
}
