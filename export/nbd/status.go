package nbd

import (
	"slices"

	"udm/blk"
	"udm/export"
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

// allocation is the context base:allocation of an export.
func allocation(e *Export) export.Context {
	return export.Context{Name: proto.ContextAllocation, Status: func(sector, sectors uint64) (runs []export.Run, err error) {
		list := blk.AllData(sector, sectors)
		if e.Extents != nil {
			list, err = e.Extents(sector, sectors)
		}
		for _, x := range list {
			runs = append(runs, export.Run{Sectors: x.Sectors, Status: stateOf(x)})
		}
		return runs, err
	}}
}

func stateOf(e blk.Extent) uint32 {
	if e.Data {
		return 0
	}
	return proto.StateHole | proto.StateZero
}

// blockStatus answers with one chunk for each context that the client has chosen, or
// for those of them that it asks about.
func (c *conn) blockStatus(r *request) *failure {
	length, asked := r.Length, c.chosen
	if r.Flags&proto.CmdFlagPayloadLen != 0 {
		var f *failure
		if length, asked, f = c.statusPayload(r); f != nil {
			return f
		}
	}
	for i, x := range asked {
		runs, f := x.runs(r.Offset, length)
		if f != nil {
			return f
		}
		if r.Flags&proto.CmdFlagReqOne != 0 {
			runs = runs[:1]
		}
		r.more = append(r.more, c.statusChunk(r, x.id, runs[:min(len(runs), maxExtents/len(asked))], i == len(asked)-1))
	}
	return nil
}

// runs asks about a range in bytes.
func (x chosen) runs(offset, length uint64) ([]export.Run, *failure) {
	runs, err := x.Status(offset/blk.SectorSize, length/blk.SectorSize)
	if err != nil {
		return nil, failureOf(blk.StatusOf(err))
	}
	if len(runs) == 0 {
		return nil, fail(proto.EIO, "%s is empty", x.Name)
	}
	return runs, nil
}

// statusPayload decodes the payload form of a request: the length of the range in
// 64 bits, then the requested contexts, 32 bits each.
func (c *conn) statusPayload(r *request) (length uint64, asked []chosen, f *failure) {
	p := r.data
	if len(p) < 8 || len(p)%4 != 0 {
		return 0, nil, fail(proto.EINVAL, "malformed payload")
	}
	length = be.Uint64(p)
	if f := c.checkRange(r, length, proto.EINVAL); f != nil {
		return 0, nil, f
	}
	for p = p[8:]; len(p) > 0; p = p[4:] {
		is := func(x chosen) bool { return x.id == be.Uint32(p) }
		i := slices.IndexFunc(c.chosen, is)
		if i < 0 || slices.ContainsFunc(asked, is) {
			return 0, nil, fail(proto.EINVAL, "metadata context %d was not negotiated or is repeated", be.Uint32(p))
		}
		asked = append(asked, c.chosen[i])
	}
	return length, asked, nil
}

// statusChunk encodes the runs of a context, in bytes, as a chunk of the reply.
func (c *conn) statusChunk(r *request, id uint32, runs []export.Run, last bool) []byte {
	flags := uint16(0)
	if last {
		flags = proto.ReplyDone
	}
	if c.mode == extended {
		size := 8 + 16*len(runs)
		p := make([]byte, c.chunkHead(), c.chunkHead()+size)
		r.chunk(p, flags, proto.ChunkBlockStatusExt, size)
		p = be.AppendUint32(p, id)
		p = be.AppendUint32(p, uint32(len(runs)))
		for _, e := range runs {
			p = be.AppendUint64(p, e.Sectors*blk.SectorSize)
			p = be.AppendUint64(p, uint64(e.Status))
		}
		return p
	}
	size := 4 + 8*len(runs)
	p := make([]byte, c.chunkHead(), c.chunkHead()+size)
	r.chunk(p, flags, proto.ChunkBlockStatus, size)
	p = be.AppendUint32(p, id)
	for _, e := range runs {
		// The requested range, and so every run, is shorter than 4 GiB here.
		p = be.AppendUint32(p, uint32(e.Sectors*blk.SectorSize))
		p = be.AppendUint32(p, e.Status)
	}
	return p
}
