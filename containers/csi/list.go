package csi

import (
	"context"
	"slices"
	"sort"
	"strings"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"udm/ctl"
	"udm/volume"
)

// each calls f for all devices of a kind, ascending by name.
func (d *Driver) each(ctx context.Context, kind string, f func(device string, r *record)) error {
	return d.eachObject(ctx, kind, func(o volume.Object, r *record) { f(o.Name, r) })
}

func (d *Driver) eachObject(ctx context.Context, kind string, f func(o volume.Object, r *record)) error {
	objects, err := d.client.Labelled(ctx, ctl.Labelled{Label: recordLabel})
	if err != nil {
		return inWords(err)
	}
	for _, o := range objects {
		if !strings.HasPrefix(o.Name, devicePrefix) {
			continue
		}
		r, err := recordOf(o)
		if err != nil {
			return err
		}
		if r != nil && r.Kind == kind {
			f(o, r)
		}
	}
	return nil
}

// page cuts a list that is ascending by names: entries after the token, most of them, and
// the token for the rest. A token is the last name of a page, so it stays right while
// entries come and go.
func page[T any](list []T, name func(T) string, token string, most int32) (part []T, next string, err error) {
	if most < 0 {
		return nil, "", status.Error(codes.InvalidArgument, "the number of entries is negative")
	}
	from := 0
	if token != "" {
		if !strings.HasPrefix(token, devicePrefix) {
			return nil, "", status.Errorf(codes.Aborted, "%q is no token of a list; start from the beginning", token)
		}
		from = sort.Search(len(list), func(i int) bool { return name(list[i]) > token })
	}
	part = list[from:]
	if most > 0 && len(part) > int(most) {
		part = part[:most]
		next = name(part[most-1])
	}
	return part, next, nil
}

// ListVolumes implements csi.ControllerServer.
func (d *Driver) ListVolumes(ctx context.Context, r *csi.ListVolumesRequest) (*csi.ListVolumesResponse, error) {
	var list []*csi.ListVolumesResponse_Entry
	err := d.each(ctx, isVolume, func(name string, r *record) {
		list = append(list, &csi.ListVolumesResponse_Entry{Volume: d.volume(name, r, nil), Status: &csi.ListVolumesResponse_VolumeStatus{PublishedNodeIds: published(r)}})
	})
	if err != nil {
		return nil, err
	}
	part, next, err := page(list, func(e *csi.ListVolumesResponse_Entry) string { return e.Volume.VolumeId }, r.GetStartingToken(), r.GetMaxEntries())
	return &csi.ListVolumesResponse{Entries: part, NextToken: next}, err
}

func published(r *record) (nodes []string) {
	for node := range r.Published {
		nodes = append(nodes, node)
	}
	slices.Sort(nodes)
	return nodes
}

// ControllerGetVolume implements csi.ControllerServer.
func (d *Driver) ControllerGetVolume(ctx context.Context, r *csi.ControllerGetVolumeRequest) (*csi.ControllerGetVolumeResponse, error) {
	o, rec, err := d.find(ctx, isVolume, r.GetVolumeId())
	if err != nil {
		return nil, err
	}
	return &csi.ControllerGetVolumeResponse{Volume: d.volume(o.Name, rec, nil),
		Status: &csi.ControllerGetVolumeResponse_VolumeStatus{PublishedNodeIds: published(rec)}}, nil
}

// health tells what is wrong with a volume.
func (d *Driver) health(ctx context.Context, o volume.Object) *csi.VolumeHealth {
	h := &csi.VolumeHealth{VolumeId: d.id(o.Name)}
	add := func(s csi.VolumeHealthErrorType, reason, message string) {
		h.HealthStatuses = append(h.HealthStatuses, &csi.VolumeHealth_VolumeHealthEntry{Status: s, Reason: reason, Message: message})
	}
	if o.State != "active" && o.State != "suspended" {
		add(csi.VolumeHealthErrorType_INACCESSIBLE, "NotActive", o.State)
	}
	if o.State == "suspended" {
		add(csi.VolumeHealthErrorType_DEGRADED, "Suspended", "its I/O waits; udm dmsetup resume "+o.Name)
	}
	if err := d.pool.Room(ctx); err != nil {
		add(csi.VolumeHealthErrorType_DEGRADED, "PoolFull", err.Error())
	}
	return h
}

// ControllerGetVolumeHealth implements csi.ControllerServer.
func (d *Driver) ControllerGetVolumeHealth(ctx context.Context, r *csi.ControllerGetVolumeHealthRequest) (*csi.ControllerGetVolumeHealthResponse, error) {
	o, _, err := d.find(ctx, isVolume, r.GetVolumeId())
	if err != nil {
		return nil, err
	}
	return &csi.ControllerGetVolumeHealthResponse{VolumeHealth: d.health(ctx, o)}, nil
}

// ControllerListVolumeHealth implements csi.ControllerServer.
func (d *Driver) ControllerListVolumeHealth(ctx context.Context, r *csi.ControllerListVolumeHealthRequest) (*csi.ControllerListVolumeHealthResponse, error) {
	var list []volume.Object
	if err := d.eachObject(ctx, isVolume, func(o volume.Object, _ *record) { list = append(list, o) }); err != nil {
		return nil, err
	}
	part, next, err := page(list, func(o volume.Object) string { return o.Name }, r.GetStartingToken(), r.GetMaxEntries())
	if err != nil {
		return nil, err
	}
	answer := &csi.ControllerListVolumeHealthResponse{NextToken: next}
	for _, o := range part {
		answer.Entries = append(answer.Entries, d.health(ctx, o))
	}
	return answer, nil
}
