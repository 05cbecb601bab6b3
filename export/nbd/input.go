package nbd

import "io"

// input receives for the reader. It receives bytes into a slab and parses headers
// there; the payloads of writes stay where they arrived until the device is done
// with them.
//
//	slab.buf:  … pieces that bios use … | r: received, not parsed | w: free …
type input struct {
	c    *conn
	slab *slab
	r, w int

	before   []byte // received earlier, to be read first
	skipping uint64 // bytes of a payload that are to be dropped
}

// next returns the next n bytes, which stay valid until the next call. The error
// is io.EOF if the stream ends before the first byte, and io.ErrUnexpectedEOF or
// errStalled if it ends or stalls after it.
func (in *input) next(n int) ([]byte, error) {
	if in.w-in.r < n {
		if err := in.fill(n); err != nil {
			return nil, err
		}
	}
	p := in.slab.buf[in.r : in.r+n : in.r+n]
	in.r += n
	return p, nil
}

// fill receives until n bytes are available.
func (in *input) fill(n int) error {
	in.room(n)
	for in.w-in.r < n {
		got, err := in.receive(in.slab.buf[in.w:], in.w > in.r)
		in.w += got
		if err != nil {
			return err
		}
	}
	return nil
}

// receive reads once. It first sends the pending replies, because the read may
// block.
func (in *input) receive(p []byte, inside bool) (int, error) {
	if len(in.before) > 0 {
		n := copy(p, in.before)
		in.before = in.before[n:]
		return n, nil
	}
	in.c.park()
	n, err := in.c.wire.read(p, inside)
	in.c.parked.Store(false)
	if n > 0 {
		return n, nil
	}
	if err == io.EOF && inside {
		err = io.ErrUnexpectedEOF
	}
	return 0, err
}

// room makes sure that the current slab has n bytes from r on. If necessary it
// moves the bytes that were received but not parsed.
func (in *input) room(n int) {
	if in.slab != nil && in.slab.sole() {
		if in.r == in.w || len(in.slab.buf)-in.r < n {
			in.w = copy(in.slab.buf, in.slab.buf[in.r:in.w])
			in.r = 0
		}
		return
	}
	if in.slab != nil && len(in.slab.buf)-in.r >= n {
		return
	}
	s := in.c.takeSlab(slabSize)
	if in.slab != nil {
		in.w = copy(s.buf, in.slab.buf[in.r:in.w])
		in.c.unref(in.slab)
	}
	in.slab, in.r = s, 0
}

// payload receives n bytes, at most proto.MaxPayload, into r.data.
func (in *input) payload(r *request, n int) (err error) {
	if n > bigPiece {
		return in.bigPayload(r, n)
	}
	// The header may have been the end of its slab; inside then continues in a
	// slab that has room for n bytes.
	if r.data, err = in.inside(n); err == nil {
		r.inSlab = in.slab
		r.inSlab.refs.Add(1)
	}
	return err
}

// inside is like next, in the middle of a request.
func (in *input) inside(n int) ([]byte, error) {
	p, err := in.next(n)
	return p, unexpected(err)
}

// bigPayload receives the payload directly into a slab of its own.
func (in *input) bigPayload(r *request, n int) error {
	r.inSlab = in.c.takeSlab(n)
	r.data = r.inSlab.buf[:n]
	have := copy(r.data, in.slab.buf[in.r:in.w])
	in.r += have
	for have < n {
		got, err := in.receive(r.data[have:], true)
		if err != nil {
			r.data = r.data[:have]
			return err
		}
		have += got
	}
	return nil
}

// skip drops what is to be skipped.
func (in *input) skip() error {
	if in.skipping > 1<<32 {
		return errTooLarge
	}
	for in.skipping > 0 {
		if in.r == in.w {
			if err := in.fill(1); err != nil {
				return unexpected(err)
			}
		}
		some := min(in.skipping, uint64(in.w-in.r))
		in.r += int(some)
		in.skipping -= some
	}
	return nil
}

// rest takes out what was received and not parsed.
func (in *input) rest() (p []byte) {
	if in.slab != nil {
		p = append(p, in.slab.buf[in.r:in.w]...)
	}
	p = append(p, in.before...)
	in.before, in.r = nil, in.w
	return p
}

func (in *input) close() {
	if in.slab != nil {
		in.c.unref(in.slab)
	}
}

// cutter allocates space for replies from slabs, one after the other, so that
// replies which complete in order form one contiguous run of bytes.
type cutter struct {
	c    *conn
	slab *slab
	pos  int
}

// cut allocates n bytes for r's reply.
func (o *cutter) cut(r *request, n int) {
	if n > bigPiece {
		r.outSlab, r.outAt = o.c.takeSlab(n), 0
		r.out = r.outSlab.buf[:n]
		return
	}
	if o.slab == nil || len(o.slab.buf)-o.pos < n {
		o.renew()
	}
	r.outSlab, r.outAt = o.slab, o.pos
	o.slab.refs.Add(1)
	r.out = o.slab.buf[o.pos : o.pos+n]
	o.pos += n
}

func (o *cutter) renew() {
	o.pos = 0
	if o.slab != nil {
		if o.slab.sole() {
			return
		}
		o.c.unref(o.slab)
		o.slab = nil
	}
	o.slab = o.c.takeSlab(slabSize)
}

// rewind starts at the beginning again if the slab no longer holds a reply.
func (o *cutter) rewind() {
	if o.pos > 0 && o.slab.sole() {
		o.pos = 0
	}
}

func (o *cutter) close() {
	if o.slab != nil {
		o.c.unref(o.slab)
	}
}
