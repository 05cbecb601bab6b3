package volume

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"syscall"
	"time"

	"udm/blk"
	"udm/volume/rbddiff"
)

// SendSpec says what to send.
type SendSpec struct {
	Name string `json:"name"`
	// From is the checkpoint since which changes are sent: a snapshot that whoever
	// receives them has, or [BaseCheckpoint]. "": all is sent.
	From string `json:"from,omitempty"`
	// Offset is the first byte of the stream that is sent; those before are only made.
	Offset uint64 `json:"offset,omitempty"`
}

// Send writes what an object holds, or has changed since a checkpoint, as a stream of
// package rbddiff. What is written to the object meanwhile may be in it or not: send
// a snapshot to have one moment, and to be able to send what has changed since.
//
// A snapshot that was written to since it was taken is no checkpoint for who received
// it before, and is refused; as far as that can be seen only in what has changed, the
// stream is left without its end.
func (m *Manager) Send(ctx context.Context, s SendSpec, w io.Writer) error {
	return m.run(ctx, &send{s, w})
}

type send struct {
	SendSpec
	w io.Writer
}

func (c *send) kind() string { return "send" }

func (c *send) touches(m *Manager) (claim, error) {
	if _, err := m.object(c.Name); err != nil {
		return claim{}, err
	}
	cl := claim{shared: []string{c.Name}}
	if c.From != "" {
		cl.shared = append(cl.shared, c.From)
	}
	return cl, nil
}

func (c *send) plan(m *Manager, op *operation) error {
	s := &sendContent{w: c.w, offset: c.Offset}
	o, err := m.object(c.Name)
	if err != nil {
		return err
	}
	s.header = rbddiff.Header{To: c.Name, Size: o.sectors * blk.SectorSize}
	s.seal.To = o.content()
	if c.From == "" {
		s.history = &history{o: o, common: o.sectors}
		s.history.holds()
	} else if s.history, err = m.history(c.Name, c.From); err == nil {
		s.header.From, s.seal.From, s.writable, err = m.checkpoint(o, c.From)
	}
	if err != nil {
		return err
	}
	op.Add = steps{s}
	return nil
}

// content tells what an object holds from what others do: an id that stays the same
// while nobody writes to it, wherever it is received. "": somebody may.
func (o *object) content() string {
	switch {
	case o.record.Incoming != nil:
		return ""
	case o.record.Content != "":
		return o.record.Content
	case o.kind == Volume && o.record.Of != nil, o.kind == Snapshot, o.readOnly:
		return o.record.Operation
	}
	return ""
}

// checkpoint is what a stream calls a checkpoint, the id of what it holds, and whether
// it may have been written to since it had that.
func (m *Manager) checkpoint(o *object, name string) (called, id string, writable bool, err error) {
	if name == BaseCheckpoint && !m.exists(name) {
		if b := o.record.Base; b != nil {
			return filepath.Base(b.Path), b.Fingerprint, false, nil
		}
		return "", "", false, refuse(syscall.EINVAL, "%s is not based on an image; send all of it, or its changes since a snapshot", o.name)
	}
	c, err := m.object(name)
	if err != nil {
		return "", "", false, err
	}
	if c.content() == "" {
		return "", "", false, refuse(syscall.EINVAL, "%s is not a snapshot, so its changes cannot be applied to a received copy; name a snapshot", name)
	}
	return name, c.content(), !c.readOnly, nil
}

// sendContent writes the stream. It only reads, and there is nothing to undo.
type sendContent struct {
	w       io.Writer
	offset  uint64
	header  rbddiff.Header
	seal    rbddiff.Seal
	history *history
	// writable: the checkpoint is, so it is looked at whether somebody has.
	writable bool

	zero Change // is pending: it may go on
}

func (s *sendContent) kind() string                                     { return "send content" }
func (s *sendContent) undo(context.Context, *Manager, *operation) error { return nil }

// Data is sent in records of so many sectors, at their multiples; and so many zeroes
// are not sent as data.
const sendSectors, zeroSectors = 2048, 8

// sendPart is how many sectors are asked about at once.
const sendPart = 64 * sendSectors

func (s *sendContent) do(ctx context.Context, m *Manager, op *operation) (err error) {
	defer endBlocking(ctx, s.w)()
	d, err := s.history.o.dev.Open(false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	w, err := rbddiff.NewWriter(s.w, s.offset, s.header)
	buf := make([]byte, sendSectors*blk.SectorSize)
	for at, size := uint64(0), s.history.o.sectors; at < size && err == nil; {
		var c Changes
		if c, err = s.history.list(ctx, at, sendPart); err == nil && c.Own && s.writable {
			err = refuse(syscall.ESTALE, "%s was written to after it was taken, so received copies differ from it; send all of %s", s.header.From, s.header.To)
		}
		for _, e := range c.Extents {
			if err == nil {
				err = s.extent(ctx, m, d, w, e, buf)
			}
		}
		at = c.Next
		m.progress(op, func() { op.long, op.done, op.total = true, at*blk.SectorSize, size*blk.SectorSize })
	}
	if err == nil {
		err = s.endZero(w)
	}
	if err != nil {
		return sendFailed(ctx, err)
	}
	return w.Close(s.seal)
}

func sendFailed(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return errInterrupted
	}
	return err
}

// extent sends a change.
func (s *sendContent) extent(ctx context.Context, m *Manager, d blk.Device, w *rbddiff.Writer, e Change, buf []byte) error {
	if e.Zero {
		return s.zeroes(w, e.Sector, e.Sectors)
	}
	for at, end := e.Sector, e.Sector+e.Sectors; at < end; {
		n := min(end, (at/sendSectors+1)*sendSectors) - at
		p := buf[:n*blk.SectorSize]
		if ctx.Err() != nil {
			return errInterrupted
		}
		if err := blk.ReadSectors(m.env, d, p, at); err != nil {
			return fmt.Errorf("reading %s: %w", s.header.To, err)
		}
		if err := s.pieces(w, at, p); err != nil {
			return err
		}
		at += n
	}
	return nil
}

// pieces sends what was read, but for zeroes.
func (s *sendContent) pieces(w *rbddiff.Writer, at uint64, p []byte) error {
	for len(p) > 0 {
		n, zero := alike(at, p)
		var err error
		if zero {
			err = s.zeroes(w, at, n)
		} else if err = s.endZero(w); err == nil {
			err = w.Data(at*blk.SectorSize, p[:n*blk.SectorSize])
		}
		if err != nil {
			return err
		}
		at, p = at+n, p[n*blk.SectorSize:]
	}
	return nil
}

var zeroPiece [zeroSectors * blk.SectorSize]byte // never written to

// alike is how many sectors at the beginning of p are zeroes, or are not, in pieces
// at multiples of zeroSectors.
func alike(at uint64, p []byte) (sectors uint64, zero bool) {
	for rest := p; len(rest) > 0; {
		n := min(uint64(len(rest))/blk.SectorSize, zeroSectors-(at+sectors)%zeroSectors)
		piece := rest[:n*blk.SectorSize]
		z := bytes.Equal(piece, zeroPiece[:len(piece)])
		if sectors > 0 && z != zero {
			break
		}
		sectors, zero, rest = sectors+n, z, rest[len(piece):]
	}
	return sectors, zero
}

// zeroes sends zeroes once they end. What begins as nothing has them already.
func (s *sendContent) zeroes(w *rbddiff.Writer, at, sectors uint64) error {
	if s.header.From == "" {
		return nil
	}
	if s.zero.Sector+s.zero.Sectors == at {
		s.zero.Sectors += sectors
		return nil
	}
	err := s.endZero(w)
	s.zero = Change{Sector: at, Sectors: sectors}
	return err
}

func (s *sendContent) endZero(w *rbddiff.Writer) error {
	z := s.zero
	s.zero = Change{}
	return w.Zero(z.Sector*blk.SectorSize, z.Sectors*blk.SectorSize)
}

// endBlocking makes reads and writes of a stream that can be told a deadline end when
// ctx does. The function that is returned ends that.
func endBlocking(ctx context.Context, stream any) func() bool {
	return context.AfterFunc(ctx, func() {
		switch s := stream.(type) {
		case interface{ SetReadDeadline(time.Time) error }:
			_ = s.SetReadDeadline(time.Unix(1, 0)) // else it ends with its other end
		case interface{ SetWriteDeadline(time.Time) error }:
			_ = s.SetWriteDeadline(time.Unix(1, 0))
		}
	})
}
