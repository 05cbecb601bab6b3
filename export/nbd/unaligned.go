package nbd

import (
	"slices"
	"sync"
	"sync/atomic"

	"udm/blk"
	"udm/internal/nbd/proto"
)

// Clients that ignore the block size send requests that start or end inside a block.
// A read is served by reading whole blocks. A write reads the blocks at its ends,
// changes their bytes and writes them back. Nobody else may write to the device
// meanwhile, so it waits for the writes in flight of all connections, and later
// writes wait for it.

// gate is shared by the connections to one device. Each request that changes the
// device is counted in its own connection while in flight, so that connections share
// no cache line that they write to. An unaligned write closes the gate and waits
// until all counts are 0.
//
// Lock order: alone, mu.
type gate struct {
	key   any
	users int // guarded by gates.mu

	alone  sync.Mutex  // held by an unaligned write, and by others to wait at a closed gate
	closed atomic.Bool // changed by the holder of alone

	mu    sync.Mutex
	idle  *sync.Cond // on mu; signalled when a count becomes 0 while the gate is closed
	conns []*conn    // guarded by mu
}

// close waits until nothing that changes the device is in flight, and keeps such
// requests out until open.
func (g *gate) close() {
	g.alone.Lock()
	g.closed.Store(true)
	g.mu.Lock()
	defer g.mu.Unlock()
	for slices.ContainsFunc(g.conns, func(c *conn) bool { return c.changing.Load() > 0 }) {
		g.idle.Wait()
	}
}

func (g *gate) open() {
	g.closed.Store(false)
	g.alone.Unlock()
}

// gates are the gates of all servers in the process.
var gates = struct {
	mu sync.Mutex
	of map[any]*gate // guarded by mu
}{of: make(map[any]*gate)}

// gateKey identifies a device that its export does not identify: by server and name.
type gateKey struct {
	server *Server
	name   string
}

// join adds c to the connections that share the gate of an export's device.
func (c *conn) join(e *Export) {
	key := e.Same
	if key == nil {
		key = gateKey{c.srv, e.Name}
	}
	gates.mu.Lock()
	g := gates.of[key]
	if g == nil {
		g = &gate{key: key}
		g.idle = sync.NewCond(&g.mu)
		gates.of[key] = g
	}
	g.users++
	gates.mu.Unlock()
	g.mu.Lock()
	defer g.mu.Unlock()
	g.conns = append(g.conns, c)
	c.gate = g
}

// leave undoes join. No request of c may be in flight.
func (c *conn) leave() {
	g := c.gate
	g.mu.Lock()
	i := slices.Index(g.conns, c)
	g.conns = slices.Delete(g.conns, i, i+1)
	g.mu.Unlock()
	gates.mu.Lock()
	defer gates.mu.Unlock()
	if g.users--; g.users == 0 {
		delete(gates.of, g.key)
	}
}

// writing keeps unaligned writes out until r has ended, and waits for one in
// progress. It sends pending replies first: clients may wait for them.
func (c *conn) writing(r *request) {
	r.gated = true
	c.changing.Add(1)
	if !c.gate.closed.Load() {
		return
	}
	c.uncount()
	c.flush()
	c.gate.alone.Lock() // while held, the gate cannot be closed
	c.changing.Add(1)
	c.gate.alone.Unlock()
}

// written undoes writing.
func (r *request) written() {
	if r.gated {
		r.gated = false
		r.c.uncount()
	}
}

func (c *conn) uncount() {
	if c.changing.Add(-1) == 0 && c.gate.closed.Load() {
		c.gate.mu.Lock()
		c.gate.idle.Broadcast()
		c.gate.mu.Unlock()
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
	c.gate.close()
	defer c.gate.open()
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
