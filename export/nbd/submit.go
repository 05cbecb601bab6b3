package nbd

import (
	"udm/blk"
	"udm/export/nbd/internal/proto"
)

// holesFrom is the length in bytes from which on a read that may be answered
// in fragments asks for the allocation map first.
const holesFrom = 64 << 10

// run1 starts a request that was checked: reads, writes and flushes that are
// one bio on the reader's goroutine, everything else on its own.
func (c *conn) run1(r *request) {
	switch r.Cmd {
	case proto.CmdRead:
		c.out.cut(r, c.dataHead()+int(r.Length))
		if c.tooLong(r) || c.mayFragment(r) {
			break
		}
		c.submit(r, blk.Read, 0, r.readData())
		return
	case proto.CmdWrite:
		flags, slow := c.writeFlags(r)
		if slow || c.tooLong(r) {
			break
		}
		c.out.cut(r, c.ackSize())
		c.submit(r, blk.Write, flags, r.data)
		return
	case proto.CmdFlush:
		c.out.cut(r, c.ackSize())
		c.submit(r, blk.Flush, 0, nil)
		return
	}
	c.helpers.Add(1)
	go c.slow(r)
}

func (c *conn) tooLong(r *request) bool {
	return c.lim.MaxSectors != 0 && r.Length > uint64(c.lim.MaxSectors)*blk.SectorSize
}

func (c *conn) mayFragment(r *request) bool {
	return c.mode != simple && r.Length >= holesFrom && c.export.Extents != nil && r.Flags&proto.CmdFlagDF == 0
}

// writeFlags tells how a write becomes durable if it must: by a flag, or, when
// the device has no such thing, by a flush after it, which is slow. The device
// is asked anew because a mapped device may have changed.
func (c *conn) writeFlags(r *request) (flags blk.Flags, slow bool) {
	if r.Flags&proto.CmdFlagFUA == 0 {
		return 0, false
	}
	lim := c.dev.Limits()
	if lim.FUA {
		return blk.FUA, false
	}
	return 0, lim.VolatileCache
}

// The phases of a bio of the reader. Submit returns and End runs in any order,
// on one goroutine or on two; whoever comes second goes on with the request.
const (
	submitting = iota
	away       // Submit has returned: End goes on
	done       // End has run: the reader goes on
)

func (c *conn) submit(r *request, op blk.Op, flags blk.Flags, data []byte) {
	b := &r.bio
	b.Reset()
	b.Op, b.Flags, b.Sector = op, flags, r.Offset/blk.SectorSize
	if op != blk.Flush {
		b.SetData(data)
	}
	b.End, b.Private = bioEnded, r
	r.phase.Store(submitting)
	c.dev.Submit(b)
	if !r.phase.CompareAndSwap(submitting, away) {
		r.seal(c.statusFailure(b.Status()))
		c.keep(r)
	}
}

func bioEnded(b *blk.Bio) {
	r := b.Private.(*request)
	if !r.phase.CompareAndSwap(submitting, done) {
		r.seal(r.c.statusFailure(b.Status()))
		r.c.complete(r, false)
	}
}

// finish answers a request of the reader that never ran.
func (c *conn) finish(r *request, f *failure) {
	r.seal(f)
	c.keep(r)
}

// keep adds a request that the reader completed to its batch, and sends the
// batch when it is large.
func (c *conn) keep(r *request) {
	c.batch = append(c.batch, r)
	c.batched += len(r.out)
	if c.batched >= batchBytes || len(c.batch) >= batchLen {
		c.flush()
	}
}

// statusFailures is the one table from the data path's status to the errors of
// the protocol. What is no error of the client's is EIO. NotSupported never
// gets here from a write-zeroes without FastZero: that is done by writing.
var statusFailures = map[blk.Status]*failure{
	blk.IOErr:        {proto.EIO, blk.IOErr.String()},
	blk.NotSupported: {proto.ENOTSUP, blk.NotSupported.String()},
	blk.NoSpace:      {proto.ENOSPC, blk.NoSpace.String()},
	blk.WouldBlock:   {proto.EIO, blk.WouldBlock.String()},
	blk.Invalid:      {proto.EINVAL, blk.Invalid.String()},
	blk.ReadOnly:     {proto.EPERM, blk.ReadOnly.String()},
	blk.Timeout:      {proto.EIO, blk.Timeout.String()},
	blk.Target:       {proto.EIO, blk.Target.String()},
	blk.Offline:      {proto.EIO, blk.Offline.String()},
}

func (c *conn) statusFailure(st blk.Status) *failure {
	if st == blk.OK {
		return nil
	}
	if f, ok := statusFailures[st]; ok {
		return f
	}
	return statusFailures[blk.IOErr]
}
