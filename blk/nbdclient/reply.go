package nbdclient

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"udm/blk"
	"udm/internal/nbd/proto"
)

var be = binary.BigEndian

// requestOf translates a bio.
func requestOf(b *blk.Bio) proto.Request {
	r := proto.Request{Offset: b.Sector * blk.SectorSize, Length: b.Bytes()}
	switch b.Op {
	case blk.Read:
		r.Cmd = proto.CmdRead
	case blk.Write:
		r.Cmd = proto.CmdWrite
	case blk.Flush:
		r = proto.Request{Cmd: proto.CmdFlush}
	case blk.Discard:
		r.Cmd = proto.CmdTrim
	case blk.WriteZeroes:
		r.Cmd = proto.CmdWriteZeroes
	}
	if b.Flags&blk.FUA != 0 && b.Op.IsWrite() {
		r.Flags |= proto.CmdFlagFUA
	}
	if b.Op == blk.WriteZeroes && b.Flags&blk.NoUnmap != 0 {
		r.Flags |= proto.CmdFlagNoHole
	}
	if b.Op == blk.WriteZeroes && b.Flags&blk.FastZero != 0 {
		r.Flags |= proto.CmdFlagFastZero
	}
	return r
}

var statusOf = map[proto.Errno]blk.Status{
	0: blk.OK, proto.EPERM: blk.ReadOnly, proto.ENOSPC: blk.NoSpace, proto.EINVAL: blk.Invalid,
	proto.EOVERFLOW: blk.Invalid, proto.ENOTSUP: blk.NotSupported, proto.ESHUTDOWN: blk.Offline,
}

func (k *call) fail(e proto.Errno) {
	st, ok := statusOf[e]
	if !ok || st == blk.NoSpace && k.req.Cmd == proto.CmdFlush { // nobody knows what is lost
		st = blk.IOErr
	}
	if k.status == blk.OK {
		k.status = st
	}
}

// receive is the receiving goroutine.
func (c *Client) receive() {
	for {
		if err := c.reply(); err != nil {
			c.fail(err)
			return
		}
	}
}

// chunk is one message of the server.
type chunk struct {
	kind   proto.Chunk
	last   bool
	length uint64 // of the payload
}

// reply reads one message and passes its content to its call.
func (c *Client) reply() error {
	h, err := c.in.Peek(4)
	if err != nil {
		return err
	}
	switch be.Uint32(h) {
	case proto.MagicSimple:
		return c.simple()
	case proto.MagicStructured:
		return c.chunk(proto.StructuredSize)
	case proto.MagicExtReply:
		return c.chunk(proto.ExtReplySize)
	}
	return fmt.Errorf("nbdclient: reply with magic %#x", h)
}

func (c *Client) simple() error {
	var h [proto.SimpleSize]byte
	if _, err := io.ReadFull(c.in, h[:]); err != nil {
		return err
	}
	k, err := c.lookup(be.Uint64(h[8:]))
	if err != nil {
		return err
	}
	k.fail(proto.Errno(be.Uint32(h[4:])))
	if k.status == blk.OK && k.req.Cmd == proto.CmdRead {
		if err := c.readInto(k, 0, k.req.Length); err != nil {
			return err
		}
	}
	c.finish(k)
	return nil
}

func (c *Client) chunk(size int) error {
	h := make([]byte, size)
	if _, err := io.ReadFull(c.in, h); err != nil {
		return err
	}
	ch := chunk{kind: proto.Chunk(be.Uint16(h[6:])), last: be.Uint16(h[4:])&proto.ReplyDone != 0}
	if size == proto.ExtReplySize {
		ch.length = be.Uint64(h[24:])
	} else {
		ch.length = uint64(be.Uint32(h[16:]))
	}
	k, err := c.lookup(be.Uint64(h[8:]))
	if err != nil {
		return err
	}
	if err := c.content(k, ch); err != nil {
		return err
	}
	if ch.last {
		c.finish(k)
	}
	return nil
}

func (c *Client) lookup(cookie uint64) (*call, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if k := c.pending[cookie]; k != nil && !k.answered {
		return k, nil
	}
	return nil, fmt.Errorf("nbdclient: reply with unknown cookie %d", cookie)
}

// content reads the payload of a chunk.
func (c *Client) content(k *call, ch chunk) error {
	if ch.kind == proto.ChunkData && ch.length > 8 && k.req.Cmd == proto.CmdRead {
		off, err := c.u64()
		if err != nil || off < k.req.Offset || off-k.req.Offset > k.req.Length {
			return bad(ch, err)
		}
		return c.readInto(k, off-k.req.Offset, ch.length-8)
	}
	if ch.length > 16*(1<<20)+8 {
		return bad(ch, nil)
	}
	p := make([]byte, ch.length)
	if _, err := io.ReadFull(c.in, p); err != nil {
		return err
	}
	switch {
	case ch.kind == proto.ChunkNone && len(p) == 0:
		return nil
	case ch.kind.IsErr() && len(p) >= 6:
		k.fail(proto.Errno(be.Uint32(p)))
		return nil
	case ch.kind == proto.ChunkHole && len(p) == 12 && k.req.Cmd == proto.CmdRead:
		return c.hole(k, ch, be.Uint64(p), uint64(be.Uint32(p[8:])))
	case ch.kind == proto.ChunkBlockStatus && len(p)%8 == 4:
		return k.extents(p[4:], 4)
	case ch.kind == proto.ChunkBlockStatusExt && len(p)%16 == 8:
		return k.extents(p[8:], 8)
	}
	return bad(ch, nil)
}

func bad(ch chunk, err error) error {
	if err != nil {
		return err
	}
	return fmt.Errorf("nbdclient: bad chunk of type %d with %d bytes", ch.kind, ch.length)
}

func (c *Client) u64() (uint64, error) {
	var p [8]byte
	_, err := io.ReadFull(c.in, p[:])
	return be.Uint64(p[:]), err
}

// part calls f for the pieces of the bio's buffers that hold n bytes from at on.
func (k *call) part(at, n uint64, f func([]byte) error) error {
	if n > k.req.Length-at {
		return fmt.Errorf("nbdclient: the reply has data beyond the request")
	}
	for seg := range k.bio.Segments() {
		if at >= uint64(len(seg)) {
			at -= uint64(len(seg))
			continue
		}
		p := seg[at:][:min(n, uint64(len(seg))-at)]
		if err := f(p); err != nil {
			return err
		}
		if n -= uint64(len(p)); n == 0 {
			break
		}
		at = 0
	}
	return nil
}

func (c *Client) readInto(k *call, at, n uint64) error {
	return k.part(at, n, func(p []byte) error {
		_, err := io.ReadFull(c.in, p)
		return err
	})
}

func (c *Client) hole(k *call, ch chunk, off, n uint64) error {
	if off < k.req.Offset || off-k.req.Offset > k.req.Length {
		return bad(ch, nil)
	}
	return k.part(off-k.req.Offset, n, func(p []byte) error {
		clear(p)
		return nil
	})
}

// extents decodes descriptors whose fields are width bytes long, so far as they
// lie in what was asked about. A sector of which not all is known to be a hole is
// data.
func (k *call) extents(p []byte, width int) error {
	if k.list != nil || k.req.Cmd != proto.CmdBlockStatus {
		return errors.New("nbdclient: a block status that nobody asked for")
	}
	at, end := k.req.Offset, k.req.Offset+k.req.Length
	next := at / blk.SectorSize // first sector that list does not have yet
	upTo := func(sector uint64, data bool) {
		k.list = blk.AppendExtent(k.list, blk.Extent{Sector: next, Sectors: sector - next, Data: data})
		next = sector
	}
	for ; len(p) > 0 && at < end; p = p[2*width:] {
		n, flags := uint64(be.Uint32(p)), be.Uint32(p[4:])
		if width == 8 {
			n, flags = be.Uint64(p), uint32(be.Uint64(p[8:]))
		}
		from := at
		at += min(n, end-at)
		first, last := (from+blk.SectorSize-1)/blk.SectorSize, at/blk.SectorSize
		if flags&proto.StateZero != 0 && first < last {
			upTo(first, true)
			upTo(last, false)
		}
	}
	upTo((at+blk.SectorSize-1)/blk.SectorSize, true)
	return nil
}

// Extents queries the server's allocation map, as a [blk.ExtentsFunc]. Without
// one everything is data.
func (c *Client) Extents(sector, sectors uint64) ([]blk.Extent, error) {
	if !c.info.meta {
		return blk.AllData(sector, sectors), nil
	}
	r := proto.Request{Cmd: proto.CmdBlockStatus, Offset: sector * blk.SectorSize, Length: sectors * blk.SectorSize}
	if !c.info.extended {
		r.Length = min(r.Length, 1<<32-65536)
	}
	k := &call{req: r}
	if st := c.enqueue(k, false); st != blk.OK {
		return nil, st
	}
	c.wait.Until(func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return k.ended
	})
	if k.status == blk.OK && len(k.list) == 0 {
		return blk.AllData(sector, sectors), nil
	}
	return k.list, k.status.Err()
}
