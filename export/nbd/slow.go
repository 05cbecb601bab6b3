package nbd

import (
	"udm/blk"
	"udm/export/nbd/internal/proto"
)

// Slow requests are those that take several bios or none: they run on a
// goroutine of their own, of which a connection has at most maxRequests.
// Together with writeFlags this is where what a device lacks is made up for:
// FUA by a flush after the write, write-zeroes by writing zeroes, long requests
// by several bios.

// zeroes is what a write-zeroes writes when the device has none. It is never
// written to.
var zeroes [zeroBytes]byte

const zeroBytes = 1 << 20

func (c *conn) slow(r *request) {
	defer c.helpers.Done()
	r.seal(c.perform(r))
	c.complete(r, true)
}

// perform does the work of r. For reads and block status it leaves the reply's
// content in out and more.
func (c *conn) perform(r *request) *failure {
	switch r.Cmd {
	case proto.CmdRead:
		return c.readPieces(r)
	case proto.CmdWrite:
		return c.durably(r, c.writePieces(r, r.data))
	case proto.CmdTrim:
		return c.durably(r, c.trim(r))
	case proto.CmdCache:
		return c.statusFailure(c.warm(r))
	case proto.CmdWriteZeroes:
		return c.durably(r, c.writeZeroes(r))
	case proto.CmdBlockStatus:
		return c.blockStatus(r)
	}
	return fail(proto.EINVAL, "command %d is not known", r.Cmd)
}

// do runs one bio of r.
func (c *conn) do(r *request, op blk.Op, flags blk.Flags, offset, length uint64, data []byte) blk.Status {
	b := &r.bio
	b.Reset()
	b.Op, b.Flags, b.Sector = op, flags, offset/blk.SectorSize
	if data != nil {
		b.SetData(data)
	} else {
		b.Sectors = length / blk.SectorSize
	}
	return blk.Do(c.srv.cfg.Env, c.dev, b)
}

// pieces calls f for consecutive parts of the range, each at most limit bytes,
// until one fails.
func pieces(offset, length, limit uint64, f func(offset, length uint64) blk.Status) blk.Status {
	for length > 0 {
		n := min(length, limit)
		if st := f(offset, n); st != blk.OK {
			return st
		}
		offset, length = offset+n, length-n
	}
	return blk.OK
}

// dataLimit is the longest read or write, in bytes.
func (c *conn) dataLimit() uint64 {
	if c.lim.MaxSectors == 0 {
		return proto.MaxPayload
	}
	return c.bytesLimit(uint64(c.lim.MaxSectors), c.minBlock)
}

// durably finishes a write that may have to be durable when it is answered.
func (c *conn) durably(r *request, st blk.Status) *failure {
	if st == blk.OK && r.Flags&proto.CmdFlagFUA != 0 {
		st = c.do(r, blk.Flush, 0, 0, 0, nil)
	}
	return c.statusFailure(st)
}

// readPieces reads the range, or, if the reply may be in fragments, what of it
// is not a hole.
func (c *conn) readPieces(r *request) *failure {
	if !c.mayFragment(r) {
		return c.statusFailure(c.readRange(r, r.Offset, r.Length))
	}
	list, f := c.extents(r.Offset, r.Length)
	if f != nil {
		return f
	}
	if len(list) == 1 && list[0].Data {
		return c.statusFailure(c.readRange(r, r.Offset, r.Length))
	}
	for _, e := range list {
		if f := c.fragment(r, e.Sector*blk.SectorSize, e.Sectors*blk.SectorSize, e.Data); f != nil {
			return f
		}
	}
	return c.lastFragment(r, list[len(list)-1])
}

func (c *conn) readRange(r *request, offset, length uint64) blk.Status {
	return pieces(offset, length, c.dataLimit(), func(off, n uint64) blk.Status {
		return c.do(r, blk.Read, 0, off, n, r.readData()[off-r.Offset:][:n:n])
	})
}

func (c *conn) writePieces(r *request, data []byte) blk.Status {
	return pieces(r.Offset, r.Length, c.dataLimit(), func(off, n uint64) blk.Status {
		at := off - r.Offset
		return c.do(r, blk.Write, 0, off, n, data[at:at+n:at+n])
	})
}

// trim discards the whole granules of the range. It is a hint: a device that
// cannot says so and the client need not know.
func (c *conn) trim(r *request) blk.Status {
	g := max(uint64(c.lim.DiscardGranularity), c.minBlock)
	start := (r.Offset + g - 1) / g * g
	end := (r.Offset + r.Length) / g * g
	if end <= start {
		return blk.OK
	}
	st := pieces(start, end-start, c.bytesLimit(c.lim.MaxDiscard, g), func(off, n uint64) blk.Status {
		return c.do(r, blk.Discard, 0, off, n, nil)
	})
	if st == blk.NotSupported {
		return blk.OK
	}
	return st
}

// bytesLimit turns a maximum in sectors into one in bytes that is a multiple
// of unit, or unit.
func (c *conn) bytesLimit(sectors, unit uint64) uint64 {
	n := min(sectors, blk.NoLimit) * blk.SectorSize
	return max(n/unit*unit, unit)
}

// writeZeroes lets the device do it, or writes. With FAST_ZERO it never writes.
func (c *conn) writeZeroes(r *request) blk.Status {
	var flags blk.Flags
	if r.Flags&proto.CmdFlagNoHole != 0 {
		flags |= blk.NoUnmap
	}
	fast := r.Flags&proto.CmdFlagFastZero != 0
	if fast {
		flags |= blk.FastZero
	}
	st := blk.NotSupported
	if c.lim.MaxWriteZeroes > 0 {
		st = pieces(r.Offset, r.Length, c.bytesLimit(c.lim.MaxWriteZeroes, c.minBlock), func(off, n uint64) blk.Status {
			return c.do(r, blk.WriteZeroes, flags, off, n, nil)
		})
	}
	if st != blk.NotSupported || fast {
		return st
	}
	return pieces(r.Offset, r.Length, min(c.dataLimit(), zeroBytes), func(off, n uint64) blk.Status {
		return c.do(r, blk.Write, 0, off, n, zeroes[:n:n])
	})
}

// warm reads the range for its effect on what caches lie below.
func (c *conn) warm(r *request) blk.Status {
	s := c.srv.memory.take(slabSize)
	defer c.srv.memory.give(s)
	return pieces(r.Offset, r.Length, min(c.dataLimit(), slabSize), func(off, n uint64) blk.Status {
		return c.do(r, blk.Read, blk.Readahead, off, n, s.buf[:n:n])
	})
}
