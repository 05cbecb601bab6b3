package volume

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"syscall"

	"udm/blk"
	"udm/volume/rbddiff"
)

// receiveContent writes the contents of a stream to a device, and makes the device read-only
// when the stream is complete. Its undo does nothing: Receive cleans up.
type receiveContent struct {
	o        *object
	in       *rbddiff.Reader
	unsealed bool
	name     string // final name of the object

	stream io.Reader // the source of in

	last  rbddiff.Position // after the last complete record
	saved uint64           // offset in the stream of the last saved position
}

func (s *receiveContent) kind() string                                     { return "receive content" }
func (s *receiveContent) undo(context.Context, *Manager, *operation) error { return nil }

// saveEvery is the distance between saved positions, in bytes of the stream.
const saveEvery = 64 << 20

func (s *receiveContent) do(ctx context.Context, m *Manager, op *operation) (err error) {
	defer endBlocking(ctx, s.stream)()
	if s.o.readOnly { // it was complete before, but not renamed
		if err := m.devices.Swap(ctx, []Device{s.device(false)}, false); err != nil {
			return err
		}
	}
	d, err := s.o.dev.Open(true)
	if err != nil {
		return err
	}
	err = s.records(ctx, m, op, d)
	if err == io.EOF {
		err = s.verify()
	}
	if err == nil {
		err = blk.FlushDevice(m.env, d)
	} else {
		err = s.cut(ctx, m, d, err)
	}
	if err = errors.Join(err, d.Close()); err != nil {
		return err
	}
	return s.seal(ctx, m)
}

// records writes all records. It returns io.EOF at the end of a complete stream.
func (s *receiveContent) records(ctx context.Context, m *Manager, op *operation, d blk.Device) error {
	buf := make([]byte, copyBytes)
	size := s.in.Header().Size
	s.last = s.in.Position()
	for s.saved = s.last.Offset; ; s.last = s.in.Position() {
		if s.o.record.Incoming.Keep && s.last.Offset-s.saved >= saveEvery {
			if err := s.save(ctx, m, d); err != nil {
				return err
			}
		}
		r, err := s.in.Next()
		if err != nil {
			return err
		}
		if (r.Offset|r.Length)%blk.SectorSize != 0 {
			return refuse(syscall.EINVAL, "the stream has a record of %d bytes at %d, which is not aligned to sectors", r.Length, r.Offset)
		}
		if r.Zero {
			err = m.makeZero(ctx, d, r.Offset/blk.SectorSize, r.Length/blk.SectorSize)
		} else {
			err = s.data(ctx, m, d, r, buf)
		}
		if err != nil {
			return err
		}
		m.progress(op, func() { op.long, op.done, op.total = true, r.Offset+r.Length, size })
	}
}

func (s *receiveContent) data(ctx context.Context, m *Manager, d blk.Device, r rbddiff.Record, buf []byte) error {
	for at, end := r.Offset, r.Offset+r.Length; at < end; {
		if ctx.Err() != nil {
			return errInterrupted
		}
		p := buf[:min(uint64(len(buf)), end-at)]
		if _, err := io.ReadFull(s.in, p); err != nil {
			return err
		}
		if err := blk.WriteSectors(m.env, d, p, at/blk.SectorSize, 0); err != nil {
			return fmt.Errorf("writing %s: %w", s.o.name, err)
		}
		at += uint64(len(p))
	}
	return nil
}

// makeZero makes sectors read as zeroes, freeing their space if possible: it discards what is
// not a hole, and overwrites what is then still not a hole.
func (m *Manager) makeZero(ctx context.Context, d blk.Device, sector, sectors uint64) error {
	for end := sector + sectors; sector < end; {
		n := min(end-sector, sendPart)
		if ctx.Err() != nil {
			return errInterrupted
		}
		if l := d.Limits(); l.MaxDiscard > 0 && hasData(d, sector, n) {
			if st := blk.Do(m.env, d, &blk.Bio{Op: blk.Discard, Sector: sector, Sectors: n}); st != blk.OK && st != blk.NotSupported {
				return st.Err()
			}
		}
		for at := sector; at < sector+n; {
			for _, e := range blk.ExtentsOf(d, at, sector+n-at) {
				if e.Data {
					if err := m.zeroSectors(d, e); err != nil {
						return err
					}
				}
				at = e.Sector + e.Sectors
			}
		}
		sector += n
	}
	return nil
}

func hasData(d blk.Device, sector, sectors uint64) bool {
	list := blk.ExtentsOf(d, sector, sectors)
	return slices.ContainsFunc(list, func(e blk.Extent) bool { return e.Data }) || blk.SumExtents(list) < sectors
}

func (m *Manager) zeroSectors(d blk.Device, e blk.Extent) error {
	if d.Limits().MaxWriteZeroes > 0 {
		return blk.ZeroSectors(m.env, d, e.Sector, e.Sectors)
	}
	zeroes := make([]byte, min(copyBytes, e.Sectors*blk.SectorSize))
	for at, end := e.Sector, e.Sector+e.Sectors; at < end; {
		p := zeroes[:min(uint64(len(zeroes)), (end-at)*blk.SectorSize)]
		if err := blk.WriteSectors(m.env, d, p, at, 0); err != nil {
			return err
		}
		at += uint64(len(p)) / blk.SectorSize
	}
	return nil
}

// verify refuses a complete stream without a required seal, or with another base.
func (s *receiveContent) verify() error {
	seal, base := s.in.Seal(), s.o.record.Incoming.Base
	switch {
	case seal == nil && !s.unsealed:
		return refuse(syscall.EBADMSG, "the stream has no checksum, or is cut off before it; if rbd wrote it, use --unsealed")
	case seal != nil && seal.From != base && s.in.Header().From != "":
		return refuse(syscall.ESTALE, "the stream is based on a different %s than the one here; send all, or the changes since a snapshot that is here", s.in.Header().From)
	}
	return nil
}

// cut returns the error for an incomplete stream. It saves the received part if that is to be
// kept and the stream is not damaged.
func (s *receiveContent) cut(ctx context.Context, m *Manager, d blk.Device, err error) error {
	bad := (*rbddiff.Error)(nil)
	isCut := ctx.Err() != nil || !errors.As(err, &bad) || bad.Cut
	if ctx.Err() != nil {
		err = errInterrupted
	}
	keep := s.o.record.Incoming.Keep
	switch {
	case keep && isCut:
		if serr := s.save(m.ctx, m, d); serr != nil {
			return errors.Join(err, serr)
		}
		return refuse(syscall.EBADMSG, "%v; %s has its first %d bytes: continue with udm send --offset %d and udm receive --resume %s", err, s.o.name, s.last.Offset, s.last.Offset, s.name)
	case keep:
		return refuse(syscall.EBADMSG, "%v; %s still has the part received before: resume from there, or discard it with udm remove %s", err, s.o.name, s.o.name)
	case bad != nil:
		return refuse(syscall.EBADMSG, "%v; nothing was changed", bad)
	}
	return err
}

// save makes the received data durable, and then the position.
func (s *receiveContent) save(ctx context.Context, m *Manager, d blk.Device) error {
	if err := blk.FlushDevice(m.env, d); err != nil {
		return err
	}
	now := s.device(false)
	in := *s.o.record.Incoming
	in.At = &s.last
	now.Record.Incoming = &in
	s.saved = s.last.Offset
	return m.devices.Swap(ctx, []Device{now}, false)
}

// device returns the device with its current table.
func (s *receiveContent) device(readOnly bool) Device {
	d := s.o.device()
	d.Table, d.ReadOnly = s.o.table, readOnly
	return d
}

// seal makes the device read-only and records the id of its contents.
func (s *receiveContent) seal(ctx context.Context, m *Manager) error {
	now := s.device(true)
	if seal := s.in.Seal(); seal != nil {
		now.Record.Content = seal.To
	}
	if now.Record.Content == "" {
		now.Record.Content = now.Record.Operation
	}
	return m.devices.Swap(ctx, []Device{now}, false)
}

// endIncoming removes the mark of an object that is being received.
type endIncoming struct {
	final `json:"-"`
	Name  string
}

func (s *endIncoming) kind() string { return "end incoming" }

func (s *endIncoming) do(ctx context.Context, m *Manager, _ *operation) error {
	o, err := m.object(s.Name)
	if err != nil || o.record.Incoming == nil {
		return err
	}
	o.record.Incoming = nil
	d := o.device()
	d.Table = o.table
	return m.devices.Swap(ctx, []Device{d}, false)
}
