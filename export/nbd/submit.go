package nbd

import (
	"udm/blk"
	"udm/internal/nbd/proto"
)

// holesFrom is the minimum length in bytes of a read that consults the allocation
// map first, if it may be answered in fragments.
const holesFrom = 64 << 10

// launch starts a checked request: on the reader's goroutine if it is one bio,
// else on its own.
func (c *conn) launch(r *request) {
	if !c.aligned(r) && r.Cmd != proto.CmdBlockStatus {
		c.launchUnaligned(r)
		return
	}
	if cmdRules[r.Cmd].write {
		c.writing(r)
	}
	switch r.Cmd {
	case proto.CmdRead:
		c.out.cut(r, c.dataHead()+int(r.Length))
		if c.mayFragment(r) {
			c.goSlow(r, (*conn).readFragments)
			return
		}
		c.submit(r, blk.Read, 0, r.readData())
		return
	case proto.CmdBlockStatus:
		c.goSlow(r, (*conn).blockStatus)
		return
	}
	c.out.cut(r, c.ackSize())
	switch r.Cmd {
	case proto.CmdWrite:
		c.submit(r, blk.Write, r.fua(), r.data)
	case proto.CmdFlush:
		c.submit(r, blk.Flush, 0, nil)
	case proto.CmdTrim:
		if r.fua() != 0 {
			c.goSlow(r, (*conn).trimDurably)
			return
		}
		c.submit(r, blk.Discard, 0, nil)
	case proto.CmdWriteZeroes:
		c.submit(r, blk.WriteZeroes, r.zeroFlags(), nil)
	case proto.CmdCache:
		c.goSlow(r, (*conn).warm)
	}
}

func (c *conn) mayFragment(r *request) bool {
	return c.mode != simple && r.Length >= holesFrom && c.export.SparseReads && c.export.Extents != nil && r.Flags&proto.CmdFlagDF == 0
}

func (r *request) fua() blk.Flags {
	if r.Flags&proto.CmdFlagFUA != 0 {
		return blk.FUA
	}
	return 0
}

func (r *request) zeroFlags() blk.Flags {
	f := r.fua()
	if r.Flags&proto.CmdFlagNoHole != 0 {
		f |= blk.NoUnmap
	}
	if r.Flags&proto.CmdFlagFastZero != 0 {
		f |= blk.FastZero
	}
	return f
}

// prepare sets up the bio for a range in bytes.
func (r *request) prepare(op blk.Op, flags blk.Flags, offset, length uint64, data []byte) {
	b := &r.bio
	b.Reset()
	b.Op, b.Flags, b.Sector = op, flags, offset/blk.SectorSize
	if data != nil {
		b.SetData(data)
	} else {
		b.Sectors = length / blk.SectorSize
	}
}

// The phases of a bio of the reader. Submit returns and End runs in any order, on
// one goroutine or two; the second of them continues the request.
const (
	submitting = iota
	away       // Submit has returned: End continues
	done       // End has run: the reader continues
)

func (c *conn) submit(r *request, op blk.Op, flags blk.Flags, data []byte) {
	r.prepare(op, flags, r.Offset, r.Length, data)
	b := &r.bio
	b.End, b.Private = bioEnded, r
	r.phase.Store(submitting)
	c.dev.Submit(b)
	if !r.phase.CompareAndSwap(submitting, away) && r.settle() {
		c.keep(r)
	}
}

func bioEnded(b *blk.Bio) {
	r := b.Private.(*request)
	if !r.phase.CompareAndSwap(submitting, done) && r.settle() {
		r.c.complete(r, false)
	}
}

// settle completes the reply of a bio that ended. It returns false if the request
// continues.
func (r *request) settle() bool {
	st := r.bio.Status()
	if st == blk.NotSupported || st == blk.Target {
		switch {
		case r.Cmd == proto.CmdTrim:
			st = blk.OK // it is a hint
		case r.Cmd == proto.CmdWriteZeroes && r.Flags&proto.CmdFlagFastZero == 0:
			r.c.goSlow(r, (*conn).zeroByWriting)
			return false
		}
	}
	r.written()
	r.conclude(failureOf(st))
	return true
}

// finish answers a request that never ran.
func (c *conn) finish(r *request, f *failure) {
	r.seal(f)
	c.keep(r)
}

// keep adds a request that the reader completed to its batch, and sends the batch
// if it is large.
func (c *conn) keep(r *request) {
	c.batch = append(c.batch, r)
	c.batched += len(r.out)
	if c.batched >= batchBytes || len(c.batch) >= batchLen {
		c.flush()
	}
}

// failures maps the data path's status to the protocol's errors. Errors not
// caused by the client are EIO. Only a write-zeroes with FastZero yields
// NotSupported: see settle.
var failures = map[blk.Status]*failure{
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

// failureOf is nil for OK.
func failureOf(st blk.Status) *failure {
	if st == blk.OK {
		return nil
	}
	if f, ok := failures[st]; ok {
		return f
	}
	return failures[blk.IOErr]
}
