package nbd

import (
	"errors"
	"fmt"
	"io"
	"sync/atomic"

	"udm/blk"
	"udm/internal/nbd/proto"
)

// request is one request from its header to its reply. Requests belong to a
// connection, which reuses them: in steady state a request allocates nothing.
type request struct {
	c *conn
	proto.Request
	bio   blk.Bio
	phase atomic.Uint32 // submitting, away or done: see submit
	gated bool          // holds unaligned writes back

	data   []byte // payload of a write
	inSlab *slab  // the slab that contains data

	// The reply: out, then more. out is allocated from outSlab at outAt, with
	// room for headers, and shortened when the reply is completed.
	out     []byte
	outSlab *slab
	outAt   int
	more    [][]byte

	next *request // in a free list
}

// reset drops all references.
func (r *request) reset() {
	r.data, r.inSlab, r.out, r.outSlab, r.more = nil, nil, nil, nil, nil
}

// readData is the part of out that receives the data of a read, after the header.
func (r *request) readData() []byte {
	head, n := r.c.dataHead(), int(r.Length)
	return r.out[head : head+n : head+n]
}

// failure is an error reply.
type failure struct {
	errno proto.Errno
	text  string
}

func fail(e proto.Errno, format string, args ...any) *failure {
	return &failure{e, fmt.Sprintf(format, args...)}
}

// transmission reads and starts requests until the client disconnects, when it
// returns nil, or breaks the protocol.
func (c *conn) transmission() error {
	if err := c.in.skip(); err != nil {
		return err
	}
	for {
		if c.stop.Load() == moving {
			return errPaused
		}
		h, err := c.in.next(c.hdrSize)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		req, ok := proto.ParseRequest(h, c.mode == extended)
		if !ok {
			return errMagic
		}
		if req.Cmd == proto.CmdDisc {
			return nil
		}
		r := c.take()
		r.Request = req
		if err := c.start(r); err != nil {
			if errors.Is(err, errPaused) {
				c.partOf(r)
			}
			c.keep(r) // else without a reply: it did not arrive completely
			return err
		}
	}
}

// start checks the request, receives its payload, if any, and runs it. An error
// ends the connection.
func (c *conn) start(r *request) error {
	f := c.check(r)
	if n := c.payloadLen(r); n > 0 {
		if f != nil || n > proto.MaxPayload {
			c.in.skipping = n
			if err := c.in.skip(); err != nil {
				return err
			}
		} else if err := c.in.payload(r, int(n)); err != nil {
			return err
		}
	}
	if f != nil {
		c.finish(r, f)
		return nil
	}
	c.launch(r)
	return nil
}

// payloadLen is the number of bytes that follow the request's header.
func (c *conn) payloadLen(r *request) uint64 {
	if r.Cmd == proto.CmdWrite && c.mode != extended || c.mode == extended && r.Flags&proto.CmdFlagPayloadLen != 0 {
		return r.Length
	}
	return 0
}

// cmdRules lists the flags that a command may carry and the error for a range
// beyond the end. If FUA was advertised, every command may also carry it.
var cmdRules = [...]struct {
	flags  uint16
	need   uint16 // transmission flag that offers the command
	write  bool
	beyond proto.Errno
}{
	proto.CmdRead:        {proto.CmdFlagDF, 0, false, proto.EINVAL},
	proto.CmdWrite:       {0, 0, true, proto.ENOSPC},
	proto.CmdFlush:       {0, proto.FlagFlush, false, 0},
	proto.CmdTrim:        {0, proto.FlagTrim, true, proto.EINVAL},
	proto.CmdCache:       {0, proto.FlagCache, false, proto.EINVAL},
	proto.CmdWriteZeroes: {proto.CmdFlagNoHole | proto.CmdFlagFastZero, proto.FlagWriteZeroes, true, proto.ENOSPC},
	proto.CmdBlockStatus: {proto.CmdFlagReqOne, 0, false, proto.EINVAL},
}

// check is the only validation of requests. nil means that r may run: it
// lies within the export and carries only flags that were offered.
func (c *conn) check(r *request) *failure {
	if c.stopping() {
		return fail(proto.ESHUTDOWN, "the server is shutting down")
	}
	if int(r.Cmd) >= len(cmdRules) {
		return fail(proto.EINVAL, "unknown command %d", r.Cmd)
	}
	rule := &cmdRules[r.Cmd]
	if rule.write && c.readOnly {
		return fail(proto.EPERM, "the export is read-only")
	}
	if rule.need&^c.flags != 0 {
		return fail(proto.EINVAL, "command %d was not offered", r.Cmd)
	}
	if f := c.checkFlags(r, rule.flags); f != nil {
		return f
	}
	if r.Cmd == proto.CmdFlush {
		if r.Offset != 0 || r.Length != 0 {
			return fail(proto.EINVAL, "a flush has no range")
		}
		return nil
	}
	if r.Cmd == proto.CmdBlockStatus {
		if len(c.chosen) == 0 {
			return fail(proto.EINVAL, "no metadata context was negotiated")
		}
		if r.Flags&proto.CmdFlagPayloadLen != 0 {
			return nil // its range is in the payload
		}
	}
	return c.checkRange(r, r.Length, rule.beyond)
}

func (c *conn) checkFlags(r *request, may uint16) *failure {
	if c.flags&proto.FlagFUA != 0 {
		may |= proto.CmdFlagFUA
	}
	if c.mode == simple {
		may &^= proto.CmdFlagDF
	}
	if c.mode == extended && (r.Cmd == proto.CmdWrite || r.Cmd == proto.CmdBlockStatus && len(c.chosen) > 0) {
		may |= proto.CmdFlagPayloadLen
	}
	if bad := r.Flags &^ may; bad != 0 {
		return fail(proto.EINVAL, "flags %#x are not allowed with command %d", bad, r.Cmd)
	}
	if c.mode == extended && r.Cmd == proto.CmdWrite && r.Flags&proto.CmdFlagPayloadLen == 0 {
		return fail(proto.EINVAL, "a write requires the payload flag")
	}
	return nil
}

func (c *conn) checkRange(r *request, length uint64, beyond proto.Errno) *failure {
	switch {
	case (r.Offset|length)&(c.minBlock-1) != 0 && r.Cmd == proto.CmdBlockStatus:
		return fail(proto.EINVAL, "the range is not aligned to %d bytes", c.minBlock)
	case length == 0:
		return fail(proto.EINVAL, "the range is empty")
	case r.Cmd <= proto.CmdWrite && length > proto.MaxPayload:
		if r.Cmd == proto.CmdRead && c.mode != simple {
			return fail(proto.EOVERFLOW, "a read is at most %d bytes", proto.MaxPayload)
		}
		return fail(proto.EINVAL, "a read or write is at most %d bytes", proto.MaxPayload)
	case r.Offset > c.size || length > c.size-r.Offset:
		if c.grow(); r.Offset > c.size || length > c.size-r.Offset {
			return fail(beyond, "the range ends beyond the export's %d bytes", c.size)
		}
	}
	return nil
}

// grow adopts a larger size of the device if Config.Grow is set.
func (c *conn) grow() {
	if c.srv.cfg.Grow {
		c.size = max(c.size, c.dev.Limits().Size*blk.SectorSize)
	}
}
