package csi

import (
	"context"
	"errors"
	"strings"
	"syscall"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"udm/containers/filesystem"
	"udm/ctl"
	"udm/volume"
)

// TopologyKey is the key of the topology of a volume: the node that it is on.
const TopologyKey = "topology.udm.csi/node"

// ControllerGetCapabilities implements csi.ControllerServer.
func (d *Driver) ControllerGetCapabilities(context.Context, *csi.ControllerGetCapabilitiesRequest) (*csi.ControllerGetCapabilitiesResponse, error) {
	r := &csi.ControllerGetCapabilitiesResponse{}
	for _, t := range []csi.ControllerServiceCapability_RPC_Type{
		csi.ControllerServiceCapability_RPC_CREATE_DELETE_VOLUME,
		csi.ControllerServiceCapability_RPC_PUBLISH_UNPUBLISH_VOLUME,
		csi.ControllerServiceCapability_RPC_PUBLISH_READONLY,
		csi.ControllerServiceCapability_RPC_LIST_VOLUMES,
		csi.ControllerServiceCapability_RPC_LIST_VOLUMES_PUBLISHED_NODES,
		csi.ControllerServiceCapability_RPC_GET_CAPACITY,
		csi.ControllerServiceCapability_RPC_CREATE_DELETE_SNAPSHOT,
		csi.ControllerServiceCapability_RPC_LIST_SNAPSHOTS,
		csi.ControllerServiceCapability_RPC_GET_SNAPSHOT,
		csi.ControllerServiceCapability_RPC_CLONE_VOLUME,
		csi.ControllerServiceCapability_RPC_EXPAND_VOLUME,
		csi.ControllerServiceCapability_RPC_GET_VOLUME,
		csi.ControllerServiceCapability_RPC_SINGLE_NODE_MULTI_WRITER,
		csi.ControllerServiceCapability_RPC_MODIFY_VOLUME,
		csi.ControllerServiceCapability_RPC_GET_VOLUME_HEALTH,
		csi.ControllerServiceCapability_RPC_LIST_VOLUME_HEALTH,
	} {
		r.Capabilities = append(r.Capabilities, &csi.ControllerServiceCapability{Type: &csi.ControllerServiceCapability_Rpc{Rpc: &csi.ControllerServiceCapability_RPC{Type: t}}})
	}
	return r, nil
}

// The size of a volume without a request, and what sizes are multiples of.
const defaultSize, sizeUnit = 1 << 30, 1 << 20

// sizeOf is the size that a request asks for, or at least that of its source.
func sizeOf(r *csi.CapacityRange, source int64) (int64, error) {
	need := max(r.GetRequiredBytes(), source)
	limit := r.GetLimitBytes()
	if need == 0 {
		need = defaultSize
		if limit > 0 {
			need = min(need, limit/sizeUnit*sizeUnit)
		}
	}
	size := (need + sizeUnit - 1) / sizeUnit * sizeUnit
	if r.GetRequiredBytes() < 0 || limit < 0 || size <= 0 || limit > 0 && size > limit {
		return 0, status.Errorf(codes.OutOfRange, "no size between %d and %d bytes is possible: it must be a multiple of %d and not smaller than the source (%d)",
			r.GetRequiredBytes(), limit, sizeUnit, source)
	}
	return size, nil
}

// fits tells whether an existing size satisfies a request.
func fits(size int64, r *csi.CapacityRange) bool {
	return size >= r.GetRequiredBytes() && (r.GetLimitBytes() == 0 || size <= r.GetLimitBytes())
}

// checkCapability refuses what volumes cannot do.
func checkCapability(c *csi.VolumeCapability) error {
	switch {
	case c == nil || c.GetAccessType() == nil || c.GetAccessMode() == nil:
		return status.Error(codes.InvalidArgument, "a volume capability with access type and mode is missing")
	case c.GetMount() != nil:
		if _, err := filesystem.Parse(c.GetMount().GetFsType()); err != nil {
			return status.Error(codes.InvalidArgument, err.Error())
		}
	}
	switch c.GetAccessMode().GetMode() {
	case csi.VolumeCapability_AccessMode_MULTI_NODE_READER_ONLY, csi.VolumeCapability_AccessMode_MULTI_NODE_SINGLE_WRITER,
		csi.VolumeCapability_AccessMode_MULTI_NODE_MULTI_WRITER, csi.VolumeCapability_AccessMode_UNKNOWN:
		return status.Error(codes.InvalidArgument, "a volume can be used on one node only; ask for ReadWriteOnce or ReadWriteOncePod")
	}
	return nil
}

func checkCapabilities(cs []*csi.VolumeCapability) error {
	if len(cs) == 0 {
		return status.Error(codes.InvalidArgument, "volume capabilities are missing")
	}
	for _, c := range cs {
		if err := checkCapability(c); err != nil {
			return err
		}
	}
	return nil
}

func (d *Driver) topology() []*csi.Topology {
	return []*csi.Topology{{Segments: map[string]string{TopologyKey: d.Node}}}
}

// here tells whether a requirement lets a volume be on this node.
func (d *Driver) here(r *csi.TopologyRequirement) bool {
	for _, t := range r.GetRequisite() {
		if node, set := t.GetSegments()[TopologyKey]; !set || node == d.Node {
			return true
		}
	}
	return len(r.GetRequisite()) == 0
}

// CreateVolume implements csi.ControllerServer.
func (d *Driver) CreateVolume(ctx context.Context, r *csi.CreateVolumeRequest) (*csi.CreateVolumeResponse, error) {
	limits, err := limitsOf(r.GetMutableParameters())
	switch {
	case r.GetName() == "":
		return nil, status.Error(codes.InvalidArgument, "the name is missing")
	case err != nil:
		return nil, err
	case !d.here(r.GetAccessibilityRequirements()):
		return nil, status.Errorf(codes.ResourceExhausted, "the volume shall not be on the node %s, which is the only one that this driver serves", d.Node)
	}
	if err := checkCapabilities(r.GetVolumeCapabilities()); err != nil {
		return nil, err
	}
	name := device("vol", r.GetName())
	done, err := d.alone(name)
	if err != nil {
		return nil, err
	}
	defer done()
	rec, err := d.createVolume(ctx, name, r)
	if err == nil {
		err = d.setLimits(ctx, name, limits)
	}
	if err != nil {
		return nil, inWords(err)
	}
	return &csi.CreateVolumeResponse{Volume: d.volume(name, rec, r.GetVolumeContentSource())}, nil
}

func (d *Driver) volume(name string, r *record, source *csi.VolumeContentSource) *csi.Volume {
	return &csi.Volume{VolumeId: d.id(name), CapacityBytes: r.Bytes, ContentSource: source, AccessibleTopology: d.topology()}
}

// createVolume finds or makes a volume, and gives it its size.
func (d *Driver) createVolume(ctx context.Context, name string, r *csi.CreateVolumeRequest) (*record, error) {
	from, err := d.source(ctx, r.GetVolumeContentSource())
	if err != nil {
		return nil, err
	}
	o, rec, err := d.object(ctx, isVolume, name)
	switch {
	case err == nil && (rec.Source != from.id || !fits(rec.Bytes, r.GetCapacityRange())):
		return nil, status.Errorf(codes.AlreadyExists, "the volume %q exists and has another size or source", r.GetName())
	case status.Code(err) == codes.NotFound:
		if rec, err = d.newVolume(ctx, name, r, from); err == nil {
			o, rec, err = d.object(ctx, isVolume, name)
		}
	}
	if err == nil && int64(o.Bytes) < rec.Bytes { // or a kill came before this
		err = d.client.Resize(ctx, volume.ResizeSpec{Name: name, Size: uint64(rec.Bytes), Kind: volume.Volume})
	}
	if err == nil && from.drop != "" {
		err = d.remove(ctx, from.drop)
	}
	return rec, err
}

func (d *Driver) newVolume(ctx context.Context, name string, r *csi.CreateVolumeRequest, from source) (*record, error) {
	if err := d.get(ctx, &from); err != nil {
		return nil, err
	}
	size, err := sizeOf(r.GetCapacityRange(), from.bytes)
	if err != nil {
		return nil, err
	}
	rec := &record{Kind: isVolume, Name: r.GetName(), Created: time.Now().UTC(), Bytes: size, Source: from.id}
	if from.device != "" {
		if err := d.pool.Room(ctx); err != nil {
			return nil, err
		}
		return rec, d.client.Snapshot(ctx, volume.SnapshotSpec{Of: from.device, Names: []string{name}, Labels: rec.label()})
	}
	return rec, d.emptyVolume(ctx, name, rec)
}

func (d *Driver) emptyVolume(ctx context.Context, name string, rec *record) error {
	if uint64(rec.Bytes) > d.Config.Pool.Most {
		return status.Errorf(codes.OutOfRange, "a volume cannot be larger than its pool may become (%d bytes)", d.Config.Pool.Most)
	}
	if err := d.pool.Ensure(ctx); err != nil {
		return err
	}
	if err := d.pool.Room(ctx); err != nil {
		return err
	}
	return d.client.CreateVolume(ctx, volume.VolumeSpec{Pool: d.Config.Pool.Name, Name: name, Size: uint64(rec.Bytes), Labels: rec.label()})
}

// remove removes a device and gives its space back. It may be gone already.
func (d *Driver) remove(ctx context.Context, name string) error {
	err := d.client.Detach(ctx, ctl.Ref{Name: name})
	if err == nil || absent(err) {
		err = d.client.RemoveObject(ctx, volume.RemoveSpec{Name: name, Kind: volume.Volume})
	}
	if absent(err) {
		return nil
	}
	return err
}

// absent tells whether an error says that something is not there.
func absent(err error) bool { return errors.Is(err, syscall.ENXIO) || errors.Is(err, syscall.ENODEV) }

// DeleteVolume implements csi.ControllerServer.
func (d *Driver) DeleteVolume(ctx context.Context, r *csi.DeleteVolumeRequest) (*csi.DeleteVolumeResponse, error) {
	if err := d.delete(ctx, isVolume, r.GetVolumeId()); err != nil {
		return nil, err
	}
	return &csi.DeleteVolumeResponse{}, nil
}

// delete removes a volume or a snapshot, or does nothing if there is none.
func (d *Driver) delete(ctx context.Context, kind, id string) error {
	_, r, err := d.find(ctx, kind, id)
	if status.Code(err) == codes.NotFound {
		return nil
	}
	if err != nil {
		return err
	}
	if len(r.Published) > 0 {
		return status.Errorf(codes.FailedPrecondition, "%s is published; unpublish it first", id)
	}
	name, _ := d.local(id)
	done, err := d.alone(name)
	if err != nil {
		return err
	}
	defer done()
	return inWords(d.remove(ctx, name))
}

// ValidateVolumeCapabilities implements csi.ControllerServer.
func (d *Driver) ValidateVolumeCapabilities(ctx context.Context, r *csi.ValidateVolumeCapabilitiesRequest) (*csi.ValidateVolumeCapabilitiesResponse, error) {
	if _, _, err := d.find(ctx, isVolume, r.GetVolumeId()); err != nil {
		return nil, err
	}
	if len(r.GetVolumeCapabilities()) == 0 {
		return nil, status.Error(codes.InvalidArgument, "volume capabilities are missing")
	}
	if err := checkCapabilities(r.GetVolumeCapabilities()); err != nil {
		return &csi.ValidateVolumeCapabilitiesResponse{Message: err.Error()}, nil
	}
	return &csi.ValidateVolumeCapabilitiesResponse{Confirmed: &csi.ValidateVolumeCapabilitiesResponse_Confirmed{
		VolumeContext: r.GetVolumeContext(), VolumeCapabilities: r.GetVolumeCapabilities(), Parameters: r.GetParameters()}}, nil
}

// GetCapacity implements csi.ControllerServer.
func (d *Driver) GetCapacity(ctx context.Context, r *csi.GetCapacityRequest) (*csi.GetCapacityResponse, error) {
	if node, set := r.GetAccessibleTopology().GetSegments()[TopologyKey]; set && node != d.Node {
		return &csi.GetCapacityResponse{}, nil
	}
	s, err := d.pool.Space(ctx)
	if err != nil && !errors.Is(err, syscall.ENXIO) { // it is made with the first volume
		return nil, inWords(err)
	}
	return &csi.GetCapacityResponse{AvailableCapacity: int64(d.Config.Pool.Most - min(s.Used, d.Config.Pool.Most))}, nil
}

// ControllerExpandVolume implements csi.ControllerServer. There is one resizer for all
// nodes; a volume of another node is expanded by the NodeExpandVolume there.
func (d *Driver) ControllerExpandVolume(ctx context.Context, r *csi.ControllerExpandVolumeRequest) (*csi.ControllerExpandVolumeResponse, error) {
	if d.elsewhere(r.GetVolumeId()) {
		size, err := sizeOf(r.GetCapacityRange(), 0)
		return &csi.ControllerExpandVolumeResponse{CapacityBytes: size, NodeExpansionRequired: true}, err
	}
	o, rec, err := d.find(ctx, isVolume, r.GetVolumeId())
	switch {
	case err != nil:
		return nil, err
	case r.GetCapacityRange() == nil:
		return nil, status.Error(codes.InvalidArgument, "the capacity range is missing")
	}
	size, err := d.expand(ctx, o.Name, rec, r.GetCapacityRange())
	if err != nil {
		return nil, inWords(err)
	}
	return &csi.ControllerExpandVolumeResponse{CapacityBytes: size, NodeExpansionRequired: r.GetVolumeCapability().GetBlock() == nil}, nil
}

// elsewhere tells whether an id is one of another node.
func (d *Driver) elsewhere(id string) bool {
	device, node, found := strings.Cut(id, "@")
	return found && node != d.Node && strings.HasPrefix(device, devicePrefix)
}

// expand makes a volume larger, if it is smaller than a request.
func (d *Driver) expand(ctx context.Context, name string, rec *record, r *csi.CapacityRange) (int64, error) {
	size, err := sizeOf(r, rec.Bytes)
	if err != nil {
		return 0, err
	}
	done, err := d.alone(name)
	if err != nil {
		return 0, err
	}
	defer done()
	rec.Bytes = size
	if err := d.save(ctx, name, rec); err != nil {
		return 0, err
	}
	return size, d.client.Resize(ctx, volume.ResizeSpec{Name: name, Size: uint64(size), Kind: volume.Volume})
}
