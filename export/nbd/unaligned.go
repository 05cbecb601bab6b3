package nbd

import (
	"udm/blk"
	"udm/internal/nbd/proto"
)

// Clients that ignore the block size send requests that start or end inside a block.
// A read is served by reading whole blocks. A write reads the blocks at its ends,
// changes their bytes and writes them back, while package gate keeps all other writes
// to the device out.

// gateKey identifies a device that its export does not identify: by server and name.
type gateKey struct {
	server *Server
	name   string
}

// join makes c a client of the gate of an export's device.
func (c *conn) join(e *Export) {
	key := e.Same
	if key == nil {
		key = gateKey{c.srv, e.Name}
	}
	c.gate.Join(key)
}

// writing keeps unaligned writes out until r has ended, and waits for one in
// progress. It sends pending replies first: clients may wait for them.
func (c *conn) writing(r *request) {
	r.gated = true
	if c.gate.TryEnter() {
		return
	}
	c.flush()
	c.gate.Enter()
}

// written undoes writing.
func (r *request) written() {
	if r.gated {
		r.gated = false
		r.c.gate.Exit()
	}
}

func (c *conn) aligned(r *request) bool { return (r.Offset|r.Length)&(c.minBlock-1) == 0 }

// launchUnaligned starts a checked request that is not aligned.
func (c *conn) launchUnaligned(r *request) {
	switch r.Cmd {
	case proto.CmdRead:
		c.out.cut(r, c.dataHead()+int(r.Length))
		c.goSlow(r, (*conn).readUnaligned)
		return
	case proto.CmdTrim:
		c.writing(r)
	}
	c.out.cut(r, c.ackSize())
	switch r.Cmd {
	case proto.CmdWrite, proto.CmdWriteZeroes:
		c.goSlow(r, (*conn).writeUnaligned)
	case proto.CmdTrim:
		c.goSlow(r, (*conn).trimInside)
	case proto.CmdCache:
		c.goSlow(r, (*conn).warm)
	}
}

// around returns the whole blocks around a range.
func (c *conn) around(offset, length uint64) (uint64, uint64) {
	first := offset &^ (c.minBlock - 1)
	end := (offset + length + c.minBlock - 1) &^ (c.minBlock - 1)
	return first, end - first
}

// trimInside discards the whole blocks in r's range, if any: a trim is only a hint.
func (c *conn) trimInside(r *request) *failure {
	first := (r.Offset + c.minBlock - 1) &^ (c.minBlock - 1)
	end := (r.Offset + r.Length) &^ (c.minBlock - 1)
	if first < end {
		if st := c.do(r, blk.Discard, 0, first, end-first, nil); st != blk.OK && st != blk.NotSupported {
			return failureOf(st)
		}
	}
	if r.fua() == 0 {
		return nil
	}
	return failureOf(c.do(r, blk.Flush, 0, 0, 0, nil))
}

func (c *conn) readUnaligned(r *request) *failure {
	s := c.srv.memory.take(slabSize)
	defer c.srv.memory.give(s)
	out := r.readData()
	first, length := c.around(r.Offset, r.Length)
	return pieces(first, length, slabSize, func(off, n uint64) blk.Status {
		st := c.do(r, blk.Read, 0, off, n, s.buf[:n:n])
		begin := max(off, r.Offset)
		copy(out[begin-r.Offset:], s.buf[begin-off:n])
		return st
	})
}

// writeUnaligned writes the data of r, or zeroes.
func (c *conn) writeUnaligned(r *request) *failure {
	if r.Flags&proto.CmdFlagFastZero != 0 && r.Cmd == proto.CmdWriteZeroes {
		return failureOf(blk.NotSupported) // it requires reading blocks
	}
	c.gate.Close()
	defer c.gate.Open()
	offset, length := r.Offset, r.Length
	for length > 0 {
		n := c.nextPart(offset, length)
		if st := c.writePart(r, offset, n); st != blk.OK {
			return failureOf(st)
		}
		offset, length = offset+n, length-n
	}
	return nil
}

// nextPart is the length of the first part of a range: up to the end of its block if
// that is written in part, else all whole blocks.
func (c *conn) nextPart(offset, length uint64) uint64 {
	inside := offset & (c.minBlock - 1)
	if inside != 0 || length < c.minBlock {
		return min(length, c.minBlock-inside)
	}
	return length &^ (c.minBlock - 1)
}

func (c *conn) writePart(r *request, offset, n uint64) blk.Status {
	whole := (offset|n)&(c.minBlock-1) == 0
	switch {
	case !whole:
		return c.modify(r, offset, n)
	case r.Cmd == proto.CmdWrite:
		begin := offset - r.Offset
		return c.do(r, blk.Write, r.fua(), offset, n, r.data[begin:begin+n:begin+n])
	}
	st := c.do(r, blk.WriteZeroes, r.zeroFlags(), offset, n, nil)
	if st != blk.NotSupported && st != blk.Target {
		return st
	}
	for st = blk.OK; n > 0 && st == blk.OK; {
		part := min(n, zeroBlock)
		st = c.do(r, blk.Write, r.fua(), offset, part, zeroes[:part:part])
		offset, n = offset+part, n-part
	}
	return st
}

// modify writes part of a block.
func (c *conn) modify(r *request, offset, n uint64) blk.Status {
	block := make([]byte, c.minBlock)
	first := offset &^ (c.minBlock - 1)
	if st := c.do(r, blk.Read, 0, first, c.minBlock, block); st != blk.OK {
		return st
	}
	part := block[offset-first:][:n]
	clear(part)
	if r.Cmd == proto.CmdWrite {
		copy(part, r.data[offset-r.Offset:])
	}
	return c.do(r, blk.Write, r.fua(), first, c.minBlock, block)
}
