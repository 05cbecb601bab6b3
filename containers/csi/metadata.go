package csi

import (
	"context"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"udm/blk"
	"udm/volume"
)

// metadata implements csi.SnapshotMetadataServer: what a snapshot holds and what has
// changed between two, from the metadata of the pool.
type metadata struct {
	csi.UnimplementedSnapshotMetadataServer
	d *Driver
}

// mostBlocks is how many blocks an answer has when the request does not say.
const mostBlocks = 1024

// GetMetadataAllocated implements csi.SnapshotMetadataServer.
func (m metadata) GetMetadataAllocated(r *csi.GetMetadataAllocatedRequest, to csi.SnapshotMetadata_GetMetadataAllocatedServer) error {
	o, _, err := m.d.find(to.Context(), isSnapshot, r.GetSnapshotId())
	if err != nil {
		return err
	}
	q := blocks{object: o, from: r.GetStartingOffset(), most: r.GetMaxResults()}
	return m.tell(to.Context(), q, func(size int64, list []*csi.BlockMetadata) error {
		return to.Send(&csi.GetMetadataAllocatedResponse{BlockMetadataType: csi.BlockMetadataType_VARIABLE_LENGTH, VolumeCapacityBytes: size, BlockMetadata: list})
	})
}

// GetMetadataDelta implements csi.SnapshotMetadataServer.
func (m metadata) GetMetadataDelta(r *csi.GetMetadataDeltaRequest, to csi.SnapshotMetadata_GetMetadataDeltaServer) error {
	base, was, err := m.d.find(to.Context(), isSnapshot, r.GetBaseSnapshotId())
	if err != nil {
		return err
	}
	o, is, err := m.d.find(to.Context(), isSnapshot, r.GetTargetSnapshotId())
	switch {
	case err != nil:
		return err
	case was.Of != is.Of:
		return status.Errorf(codes.InvalidArgument, "%s and %s are snapshots of different volumes", r.GetBaseSnapshotId(), r.GetTargetSnapshotId())
	}
	q := blocks{object: o, since: base.Name, zeroes: true, from: r.GetStartingOffset(), most: r.GetMaxResults()}
	return m.tell(to.Context(), q, func(size int64, list []*csi.BlockMetadata) error {
		return to.Send(&csi.GetMetadataDeltaResponse{BlockMetadataType: csi.BlockMetadataType_VARIABLE_LENGTH, VolumeCapacityBytes: size, BlockMetadata: list})
	})
}

// blocks is a question about blocks.
type blocks struct {
	object volume.Object
	since  string
	zeroes bool // those that read as zeroes now count
	from   int64
	most   int32
}

// tell sends the answers: blocks ascending by offset, some in each.
func (m metadata) tell(ctx context.Context, q blocks, send func(size int64, list []*csi.BlockMetadata) error) error {
	size := int64(q.object.Bytes)
	switch {
	case q.from < 0 || q.most < 0:
		return status.Error(codes.InvalidArgument, "the offset or the number of results is negative")
	case q.from > size:
		return status.Errorf(codes.OutOfRange, "the offset %d is behind the end of the snapshot, which has %d bytes", q.from, size)
	case q.most == 0:
		q.most = mostBlocks
	}
	ask := volume.ChangesSpec{Name: q.object.Name, Since: q.since, Sector: uint64(q.from) / blk.SectorSize}
	for ask.Sector*blk.SectorSize < q.object.Bytes {
		c, err := m.d.client.Changes(ctx, ask)
		if err != nil {
			return inWords(err)
		}
		var list []*csi.BlockMetadata
		for _, e := range c.Extents {
			if e.Zero && !q.zeroes {
				continue
			}
			list = append(list, &csi.BlockMetadata{ByteOffset: int64(e.Sector * blk.SectorSize), SizeBytes: int64(e.Sectors * blk.SectorSize)})
			if len(list) == int(q.most) {
				if err := send(size, list); err != nil {
					return err
				}
				list = nil
			}
		}
		if len(list) > 0 {
			if err := send(size, list); err != nil {
				return err
			}
		}
		ask.Sector, ask.Of = c.Next, c.Of
	}
	return nil
}
