package nbd

import (
	"udm/blk"
	"udm/export/nbd/internal/proto"
)

// maxExtents is the most descriptors in one block status reply.
const maxExtents = 64 << 10

// extents asks the export's map about a range in bytes; without a map all is
// data.
func (c *conn) extents(offset, length uint64) ([]blk.Extent, *failure) {
	sector, sectors := offset/blk.SectorSize, length/blk.SectorSize
	if c.export.Extents == nil {
		return []blk.Extent{{Sector: sector, Sectors: sectors, Data: true}}, nil
	}
	list, err := c.export.Extents(sector, sectors)
	if err != nil {
		return nil, c.statusFailure(blk.StatusOf(err))
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

// statusPayload takes the payload form of a request apart: the length of the
// range in 64 bits, then the contexts wanted, in 32 bits each.
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
			return 0, false, fail(proto.EINVAL, "metadata context %d was not negotiated or is there twice", be.Uint32(p))
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
		// The range asked for, and so every extent, is below 4 GiB here.
		p = be.AppendUint32(p, uint32(e.Sectors*blk.SectorSize))
		p = be.AppendUint32(p, stateOf(e))
	}
	return p
}

// fragment adds a chunk to the reply of a read, either data, which it reads, or
// a hole.
func (c *conn) fragment(r *request, offset, length uint64, data bool) *failure {
	head := make([]byte, c.chunkHead(), c.chunkHead()+12)
	if !data {
		r.chunk(head, 0, proto.ChunkHole, 12)
		head = be.AppendUint64(head, offset)
		r.more = append(r.more, be.AppendUint32(head, uint32(length)))
		return nil
	}
	r.chunk(head, 0, proto.ChunkData, 8+int(length))
	r.more = append(r.more, be.AppendUint64(head, offset), r.readData()[offset-r.Offset:][:length])
	return c.statusFailure(c.readRange(r, offset, length))
}

// lastFragment adds what the map did not reach after e, and marks the end.
func (c *conn) lastFragment(r *request, e blk.Extent) *failure {
	end := (e.Sector + e.Sectors) * blk.SectorSize
	if left := r.Offset + r.Length - end; left > 0 {
		if f := c.fragment(r, end, left, true); f != nil {
			return f
		}
	}
	none := make([]byte, c.chunkHead())
	r.chunk(none, proto.ReplyDone, proto.ChunkNone, 0)
	r.more = append(r.more, none)
	return nil
}
