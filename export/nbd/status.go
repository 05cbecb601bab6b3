package nbd

import (
	"udm/blk"
	"udm/internal/nbd/proto"
)

// maxExtents is the most descriptors in one block status reply.
const maxExtents = 64 << 10

// extents looks up a range in bytes in the export's allocation map; without a map
// everything is data.
func (c *conn) extents(offset, length uint64) ([]blk.Extent, *failure) {
	sector, sectors := offset/blk.SectorSize, length/blk.SectorSize
	if c.export.Extents == nil {
		return []blk.Extent{{Sector: sector, Sectors: sectors, Data: true}}, nil
	}
	list, err := c.export.Extents(sector, sectors)
	if err != nil {
		return nil, failureOf(blk.StatusOf(err))
	}
	if len(list) == 0 {
		return nil, fail(proto.EIO, "the allocation map is empty")
	}
	return list[:min(len(list), maxExtents)], nil
}

func stateOf(e blk.Extent) uint32 {
	if e.Data {
		return 0
	}
	return proto.StateHole | proto.StateZero
}

// blockStatus answers with one chunk for base:allocation, or with none if the
// client asked for no context.
func (c *conn) blockStatus(r *request) *failure {
	length, want := r.Length, true
	if r.Flags&proto.CmdFlagPayloadLen != 0 {
		var f *failure
		if length, want, f = c.statusPayload(r); f != nil {
			return f
		}
	}
	if !want {
		return nil
	}
	list, f := c.extents(r.Offset, length)
	if f != nil {
		return f
	}
	if r.Flags&proto.CmdFlagReqOne != 0 {
		list = list[:1]
	}
	r.more = [][]byte{c.statusChunk(r, list)}
	return nil
}

// statusPayload decodes the payload form of a request: the length of the range in
// 64 bits, then the requested contexts, 32 bits each.
func (c *conn) statusPayload(r *request) (length uint64, want bool, f *failure) {
	p := r.data
	if len(p) < 8 || len(p)%4 != 0 {
		return 0, false, fail(proto.EINVAL, "malformed payload")
	}
	length = be.Uint64(p)
	if f := c.checkRange(r, length, proto.EINVAL); f != nil {
		return 0, false, f
	}
	for p = p[8:]; len(p) > 0; p = p[4:] {
		if be.Uint32(p) != contextID || want {
			return 0, false, fail(proto.EINVAL, "metadata context %d was not negotiated or is repeated", be.Uint32(p))
		}
		want = true
	}
	return length, want, nil
}

// statusChunk encodes the extents, in bytes, as the last chunk of the reply.
func (c *conn) statusChunk(r *request, list []blk.Extent) []byte {
	if c.mode == extended {
		size := 8 + 16*len(list)
		p := make([]byte, c.chunkHead(), c.chunkHead()+size)
		r.chunk(p, proto.ReplyDone, proto.ChunkBlockStatusExt, size)
		p = be.AppendUint32(p, contextID)
		p = be.AppendUint32(p, uint32(len(list)))
		for _, e := range list {
			p = be.AppendUint64(p, e.Sectors*blk.SectorSize)
			p = be.AppendUint64(p, uint64(stateOf(e)))
		}
		return p
	}
	size := 4 + 8*len(list)
	p := make([]byte, c.chunkHead(), c.chunkHead()+size)
	r.chunk(p, proto.ReplyDone, proto.ChunkBlockStatus, size)
	p = be.AppendUint32(p, contextID)
	for _, e := range list {
		// The requested range, and so every extent, is shorter than 4 GiB here.
		p = be.AppendUint32(p, uint32(e.Sectors*blk.SectorSize))
		p = be.AppendUint32(p, stateOf(e))
	}
	return p
}
