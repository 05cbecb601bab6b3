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

// SendSpec describes what to send.
type SendSpec struct {
	Name string `json:"name"`
	// From is the checkpoint whose changes are sent: a snapshot that the receiver has, or
	// [BaseCheckpoint]. If it is "", the whole contents are sent.
	From string `json:"from,omitempty"`
	// Offset is the first byte of the stream to send; the bytes before are only computed.
	Offset uint64 `json:"offset,omitempty"`
}

// Send writes the contents of an object, or its changes since a checkpoint, as a stream of
// package rbddiff. Concurrent writes to the object may or may not be included. Send
// snapshots: they are consistent, and later changes can be sent relative to them.
//
// A snapshot that was written to after it was taken differs from received copies, so it is
// refused as a checkpoint. If that is only detected while reading the changes, the stream is
// left incomplete.
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

// content returns an id of the object's contents that received copies share, or "" if the
// object is not a snapshot and may be written to.
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

// checkpoint returns the name of a checkpoint in streams, the id of its contents, and whether
// it may have been written to since.
func (m *Manager) checkpoint(o *object, name string) (streamName, id string, writable bool, err error) {
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

// sendContent writes the stream. It only reads the object, so undo does nothing.
type sendContent struct {
	w       io.Writer
	offset  uint64
	header  rbddiff.Header
	seal    rbddiff.Seal
	history *history
	// writable is set if the checkpoint may have been written to, which must be checked.
	writable bool

	zero Change // a pending run of zeroes, which may be extended
}

func (s *sendContent) kind() string                                     { return "send content" }
func (s *sendContent) undo(context.Context, *Manager, *operation) error { return nil }

// Records of data are split at multiples of sendSectors. Aligned pieces of zeroSectors that
// contain only zeroes are not sent as data.
const sendSectors, zeroSectors = 2048, 8

// sendPart is the number of sectors for which changes are requested at once.
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

// extent sends a changed range.
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

// pieces sends data, separating runs of zeroes.
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

// alike returns the length of the run of zeroes, or of data, at the start of p, in pieces
// that end at multiples of zeroSectors.
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

// zeroes adds a range to the pending zeroes. A stream of the whole contents omits zeroes,
// because the receiver starts with an empty image.
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

// endZero sends the pending zeroes.
func (s *sendContent) endZero(w *rbddiff.Writer) error {
	z := s.zero
	s.zero = Change{}
	return w.Zero(z.Sector*blk.SectorSize, z.Sectors*blk.SectorSize)
}

// endBlocking interrupts blocked reads and writes of a stream, if it supports deadlines, when
// ctx is done. The returned function cancels that.
func endBlocking(ctx context.Context, stream any) func() bool {
	return context.AfterFunc(ctx, func() {
		switch s := stream.(type) {
		case interface{ SetReadDeadline(time.Time) error }:
			_ = s.SetReadDeadline(time.Unix(1, 0)) // if that fails, the call blocks until the peer closes
		case interface{ SetWriteDeadline(time.Time) error }:
			_ = s.SetWriteDeadline(time.Unix(1, 0))
		}
	})
}
