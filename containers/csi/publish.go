package csi

import (
	"context"
	"strconv"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"udm/ctl"
)

// ControllerPublishVolume implements csi.ControllerServer. A volume is on its node
// already; the call only notes who may use it.
func (d *Driver) ControllerPublishVolume(ctx context.Context, r *csi.ControllerPublishVolumeRequest) (*csi.ControllerPublishVolumeResponse, error) {
	switch {
	case r.GetVolumeId() == "":
		return nil, status.Error(codes.InvalidArgument, "the id of the volume is missing")
	case r.GetNodeId() == "":
		return nil, status.Error(codes.InvalidArgument, "the id of the node is missing")
	}
	if err := checkCapability(r.GetVolumeCapability()); err != nil {
		return nil, err
	}
	o, rec, err := d.find(ctx, isVolume, r.GetVolumeId())
	switch {
	case err != nil:
		return nil, err
	case r.GetNodeId() != d.Node:
		return nil, status.Errorf(codes.NotFound, "%s is on the node %s, not on %s", r.GetVolumeId(), d.Node, r.GetNodeId())
	}
	readOnly, published := rec.Published[d.Node]
	switch {
	case published && readOnly != r.GetReadonly():
		return nil, status.Errorf(codes.AlreadyExists, "%s is published with another value of readonly", r.GetVolumeId())
	case !published:
		if err := d.mayPublish(ctx); err != nil {
			return nil, err
		}
		rec.Published = map[string]bool{d.Node: r.GetReadonly()}
		err = d.save(ctx, o.Name, rec)
	}
	return &csi.ControllerPublishVolumeResponse{}, err
}

// mayPublish fails when as many volumes are published as there may be.
func (d *Driver) mayPublish(ctx context.Context) error {
	if d.Most == 0 {
		return nil
	}
	n := int64(0)
	err := d.each(ctx, isVolume, func(_ string, r *record) {
		if len(r.Published) > 0 {
			n++
		}
	})
	if err == nil && n >= d.Most {
		err = status.Errorf(codes.ResourceExhausted, "%d volumes are published on %s, which is the maximum", n, d.Node)
	}
	return err
}

// ControllerUnpublishVolume implements csi.ControllerServer.
func (d *Driver) ControllerUnpublishVolume(ctx context.Context, r *csi.ControllerUnpublishVolumeRequest) (*csi.ControllerUnpublishVolumeResponse, error) {
	o, rec, err := d.find(ctx, isVolume, r.GetVolumeId())
	switch {
	case status.Code(err) == codes.NotFound:
		return &csi.ControllerUnpublishVolumeResponse{}, nil
	case err != nil:
		return nil, err
	}
	if len(rec.Published) > 0 && (r.GetNodeId() == "" || r.GetNodeId() == d.Node) {
		rec.Published = nil
		err = d.save(ctx, o.Name, rec)
	}
	return &csi.ControllerUnpublishVolumeResponse{}, err
}

// ControllerModifyVolume implements csi.ControllerServer: it changes what clients of a
// volume may do in a second.
func (d *Driver) ControllerModifyVolume(ctx context.Context, r *csi.ControllerModifyVolumeRequest) (*csi.ControllerModifyVolumeResponse, error) {
	o, _, err := d.find(ctx, isVolume, r.GetVolumeId())
	if err != nil {
		return nil, err
	}
	limits, err := limitsOf(r.GetMutableParameters())
	if err == nil {
		err = d.setLimits(ctx, o.Name, limits)
	}
	if err != nil {
		return nil, inWords(err)
	}
	return &csi.ControllerModifyVolumeResponse{}, nil
}

// limitsOf reads mutable parameters; nil: there are none.
func limitsOf(parameters map[string]string) (*ctl.Limit, error) {
	if len(parameters) == 0 {
		return nil, nil
	}
	l := new(ctl.Limit)
	words := map[string]*uint64{
		"readIOPS": &l.Read.IOPS, "writeIOPS": &l.Write.IOPS,
		"readBytesPerSecond": &l.Read.Bytes, "writeBytesPerSecond": &l.Write.Bytes,
	}
	for name, text := range parameters {
		value := words[name]
		if value == nil {
			return nil, status.Errorf(codes.InvalidArgument, "there is no mutable parameter %q; use readIOPS, writeIOPS, readBytesPerSecond, writeBytesPerSecond", name)
		}
		n, err := strconv.ParseUint(text, 10, 63)
		if err != nil {
			return nil, status.Errorf(codes.InvalidArgument, "%s: %q is not a number", name, text)
		}
		*value = n
	}
	return l, nil
}

func (d *Driver) setLimits(ctx context.Context, name string, l *ctl.Limit) error {
	if l == nil {
		return nil
	}
	l.Device = name
	return d.client.Limit(ctx, *l)
}
