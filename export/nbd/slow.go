package nbd

import (
	"udm/blk"
	"udm/internal/nbd/proto"
)

// Slow requests take more than one bio. Each runs on a goroutine of its own, of
// which a connection has at most maxRequests.

func (c *conn) goSlow(r *request, f func(*conn, *request) *failure) {
	c.helpers.Add(1)
	go func() {
		defer c.helpers.Done()
		failed := f(c, r)
		r.written()
		r.conclude(failed)
		c.complete(r, true)
	}()
}

// do runs one bio of r and waits for it.
func (c *conn) do(r *request, op blk.Op, flags blk.Flags, offset, length uint64, data []byte) blk.Status {
	r.prepare(op, flags, offset, length, data)
	return blk.Do(c.srv.cfg.Env, c.dev, &r.bio)
}

// pieces calls f for consecutive parts of the range, each of at most limit bytes,
// until one fails.
func pieces(offset, length, limit uint64, f func(offset, length uint64) blk.Status) *failure {
	for length > 0 {
		n := min(length, limit)
		if st := f(offset, n); st != blk.OK {
			return failureOf(st)
		}
		offset, length = offset+n, length-n
	}
	return nil
}

// trimDurably handles a trim with FUA: it flushes afterwards, since discards have
// no FUA.
func (c *conn) trimDurably(r *request) *failure {
	st := c.do(r, blk.Discard, 0, r.Offset, r.Length, nil)
	if st != blk.OK && st != blk.NotSupported {
		return failureOf(st)
	}
	return failureOf(c.do(r, blk.Flush, 0, 0, 0, nil))
}

// zeroBlock is the length of one write of zeroes in bytes.
const zeroBlock = 256 << 10

var zeroes [zeroBlock]byte // never written to

// zeroByWriting handles a write-zeroes that the device refused although its
// limits offer it.
func (c *conn) zeroByWriting(r *request) *failure {
	return pieces(r.Offset, r.Length, zeroBlock, func(off, n uint64) blk.Status {
		return c.do(r, blk.Write, r.fua(), off, n, zeroes[:n:n])
	})
}

// warm reads the range to fill the caches below.
func (c *conn) warm(r *request) *failure {
	s := c.srv.memory.take(slabSize)
	defer c.srv.memory.give(s)
	first, length := c.around(r.Offset, r.Length)
	return pieces(first, length, slabSize, func(off, n uint64) blk.Status {
		return c.do(r, blk.Read, blk.Readahead, off, n, s.buf[:n:n])
	})
}

// readFragments consults the allocation map and reads everything but holes. It
// stores the reply in more, or in out if the whole range is data.
func (c *conn) readFragments(r *request) *failure {
	list, f := c.extents(r.Offset, r.Length)
	if f != nil {
		return f
	}
	if len(list) == 1 && list[0].Data && list[0].Sectors*blk.SectorSize == r.Length {
		return failureOf(c.do(r, blk.Read, 0, r.Offset, r.Length, r.readData()))
	}
	for _, e := range list {
		if f := c.fragment(r, e.Sector*blk.SectorSize, e.Sectors*blk.SectorSize, e.Data); f != nil {
			return f
		}
	}
	return c.lastFragment(r, list[len(list)-1])
}

// fragment adds a chunk to the reply: a hole, or data, which it reads.
func (c *conn) fragment(r *request, offset, length uint64, data bool) *failure {
	head := make([]byte, c.chunkHead(), c.chunkHead()+12)
	if !data {
		r.chunk(head, 0, proto.ChunkHole, 12)
		head = be.AppendUint64(head, offset)
		r.more = append(r.more, be.AppendUint32(head, uint32(length)))
		return nil
	}
	p := r.readData()[offset-r.Offset:][:length:length]
	r.chunk(head, 0, proto.ChunkData, 8+int(length))
	r.more = append(r.more, be.AppendUint64(head, offset), p)
	return failureOf(c.do(r, blk.Read, 0, offset, length, p))
}

// lastFragment adds the rest of the range if the map ended at e, and the final
// chunk.
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
