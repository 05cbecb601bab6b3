package thinrescue

import (
	"context"
	"errors"
	"io"

	"udm/blk"
)

// CopyOptions say how a volume is copied.
type CopyOptions struct {
	Sectors  uint64                   // of the volume; 0: up to its last block that is known
	Certain  bool                     // leave out what was found by search
	Progress func(done, total uint64) // bytes; may be nil
}

// Copied is what a copy has and has not.
type Copied struct {
	Bytes      uint64      // that were written
	Unreadable []ByteRange // that are lost, and read as zeroes in the copy
}

// ByteRange is bytes from Offset on.
type ByteRange struct {
	Offset uint64 `json:"offset"`
	Length uint64 `json:"length"`
}

// copyBytes is how much is read at once.
const copyBytes = 1 << 20

// Copy writes a volume to w, which reads as zeroes: only what is mapped is written. What
// cannot be read is passed over and listed. The error is that of writing, or of ctx.
func (v *Volume) Copy(ctx context.Context, data blk.Device, w io.WriterAt, o CopyOptions) (Copied, error) {
	c := copier{v: v, data: data, w: w, o: o, buf: make([]byte, copyBytes)}
	size := v.pool.BlockSectors
	if c.end = o.Sectors; c.end == 0 {
		c.end = v.End * size
	}
	for block := uint64(0); block*size < c.end; {
		r := v.Find(block, (c.end+size-1)/size)
		if err := errors.Join(ctx.Err(), c.run(r)); err != nil {
			return c.done, err
		}
		block += r.Len
		if o.Progress != nil {
			o.Progress(min(block*size, c.end)*blk.SectorSize, c.end*blk.SectorSize)
		}
	}
	return c.done, nil
}

type copier struct {
	v    *Volume
	data blk.Device
	w    io.WriterAt
	o    CopyOptions
	end  uint64 // sectors
	buf  []byte
	done Copied
}

func (c *copier) run(r Run) error {
	size := c.v.pool.BlockSectors
	at, end := r.Thin*size, min(c.end, (r.Thin+r.Len)*size)
	switch {
	case r.State == Lost || r.State == Mapped && r.Found && c.o.Certain:
		c.miss(at, end)
		return nil
	case r.State == Hole:
		return nil
	}
	for from := r.Data * size; at < end; {
		n := min(end-at, copyBytes/blk.SectorSize)
		if err := c.part(at, from, n); err != nil {
			return err
		}
		at, from = at+n, from+n
	}
	return nil
}

// part copies sectors; if they cannot be read at once, each is by itself.
func (c *copier) part(at, from, n uint64) error {
	p := c.buf[:n*blk.SectorSize]
	if c.read(p, from) == nil {
		return c.write(p, at)
	}
	step := uint64(c.data.Limits().LogicalBlock) / blk.SectorSize
	for i := uint64(0); i < n; i += step {
		q := p[:min(step, n-i)*blk.SectorSize]
		if c.read(q, from+i) != nil {
			c.miss(at+i, at+i+step)
			continue
		}
		if err := c.write(q, at+i); err != nil {
			return err
		}
	}
	return nil
}

func (c *copier) read(p []byte, from uint64) error {
	if end := from + uint64(len(p))/blk.SectorSize; end > c.data.Limits().Size {
		return blk.Invalid
	}
	return blk.ReadSectors(c.v.pool.env, c.data, p, from)
}

func (c *copier) write(p []byte, at uint64) error {
	n, err := c.w.WriteAt(p, int64(at*blk.SectorSize))
	c.done.Bytes += uint64(n)
	return err
}

func (c *copier) miss(at, end uint64) {
	r := ByteRange{at * blk.SectorSize, (end - at) * blk.SectorSize}
	if n := len(c.done.Unreadable); n > 0 && c.done.Unreadable[n-1].Offset+c.done.Unreadable[n-1].Length == r.Offset {
		c.done.Unreadable[n-1].Length += r.Length
		return
	}
	c.done.Unreadable = append(c.done.Unreadable, r)
}
