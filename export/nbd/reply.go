package nbd

import (
	"udm/internal/nbd/proto"
)

// dataHead is the room in front of the data of a read reply: the header and,
// in chunks, the offset.
func (c *conn) dataHead() int {
	switch c.mode {
	case simple:
		return proto.SimpleSize
	case structured:
		return proto.StructuredSize + 8
	}
	return proto.ExtReplySize + 8
}

// ackSize is the length of a plain success reply.
func (c *conn) ackSize() int {
	if c.mode == extended {
		return proto.ExtReplySize
	}
	return proto.SimpleSize
}

// seal completes the reply; f is nil for success. out was allocated for a success
// reply and already holds the data of a read after its header.
func (r *request) seal(f *failure) {
	switch {
	case f != nil:
		r.sealFailure(f)
	case r.more != nil:
		r.out = r.out[:0] // all of the reply is in more
	case r.Cmd == proto.CmdRead:
		r.sealData()
	default:
		r.sealAck()
	}
}

func (r *request) sealData() {
	c := r.c
	if c.mode == simple {
		proto.PutSimple(r.out, 0, r.Cookie)
		return
	}
	n := r.chunk(r.out, proto.ReplyDone, proto.ChunkData, 8+int(r.Length))
	be.PutUint64(r.out[n:], r.Offset)
}

func (r *request) sealAck() {
	r.room(r.c.ackSize())
	if r.c.mode == extended {
		r.chunk(r.out, proto.ReplyDone, proto.ChunkNone, 0)
	} else {
		proto.PutSimple(r.out, 0, r.Cookie)
	}
}

func (r *request) sealFailure(f *failure) {
	r.more = nil
	if r.c.mode == simple || r.c.mode == structured && r.Cmd != proto.CmdRead && f.text == "" {
		r.room(proto.SimpleSize)
		proto.PutSimple(r.out, f.errno, r.Cookie)
		return
	}
	size := 6 + len(f.text)
	r.room(r.c.chunkHead() + size)
	n := r.chunk(r.out, proto.ReplyDone, proto.ChunkError, size)
	be.PutUint32(r.out[n:], uint32(f.errno))
	be.PutUint16(r.out[n+4:], uint16(len(f.text)))
	copy(r.out[n+6:], f.text)
}

// chunkHead is the length of the header of a chunk.
func (c *conn) chunkHead() int {
	if c.mode == extended {
		return proto.ExtReplySize
	}
	return proto.StructuredSize
}

// chunk writes the header of a chunk with size bytes of payload to p and
// returns its length.
func (r *request) chunk(p []byte, flags uint16, t proto.Chunk, size int) int {
	if r.c.mode == extended {
		proto.PutExtended(p, flags, t, r.Cookie, r.Offset, uint64(size))
		return proto.ExtReplySize
	}
	proto.PutStructured(p, flags, t, r.Cookie, uint32(size))
	return proto.StructuredSize
}

// room makes out n bytes long. It shortens the allocated piece or, for rare
// replies, allocates new memory.
func (r *request) room(n int) {
	if n <= len(r.out) {
		r.out = r.out[:n]
		return
	}
	r.out, r.outAt = make([]byte, n), -1<<30
}
