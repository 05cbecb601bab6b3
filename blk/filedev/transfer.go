package filedev

import (
	"errors"
	"fmt"
	"io"
	"syscall"

	"udm/blk"
)

const (
	maxVec     = 1024 // buffers in one system call: IOV_MAX
	bounceSize = 256 << 10
	zeroSize   = 64 << 10
)

// vec is a list of buffers still to be transferred.
type vec struct{ bufs [][]byte }

// set sets the list to the data of b.
func (v *vec) set(b *blk.Bio) [][]byte {
	v.bufs = v.bufs[:0]
	for p := range b.Segments() {
		v.bufs = append(v.bufs, p)
	}
	return v.bufs
}

func (d *Device) putVec(v *vec) {
	clear(v.bufs)
	d.vecs.Put(v)
}

// advance drops the first n bytes.
func advance(bufs [][]byte, n int) [][]byte {
	for n > 0 {
		if n < len(bufs[0]) {
			bufs[0] = bufs[0][n:]
			return bufs
		}
		n -= len(bufs[0])
		bufs = bufs[1:]
	}
	return bufs
}

// try performs a whole read without blocking. It returns false if it could not;
// part of the read may then have been done. It does not try writes: ext4 cannot
// do them without blocking, and on XFS they measured slower than the pool.
func (d *Device) try(b *blk.Bio) bool {
	if b.Op != blk.Read || d.noTry.Load() {
		return false
	}
	v := d.vecs.Get().(*vec)
	defer d.putVec(v)
	bufs := v.set(b)
	if len(bufs) > maxVec {
		return false
	}
	n, err := d.once(b.Op, bufs, int64(b.Sector)<<blk.SectorShift, try)
	if errors.Is(err, errors.ErrUnsupported) {
		d.noTry.Store(true)
	}
	return err == nil && uint64(n) == b.Bytes()
}

// once makes one system call.
func (d *Device) once(op blk.Op, bufs [][]byte, off int64, m mode) (int, error) {
	switch {
	case len(bufs) == 0:
		return 0, nil
	case op == blk.Read:
		return d.f.readv(bufs, off, m)
	}
	return d.f.writev(bufs, off, m)
}

// transfer performs a whole read or write.
func (d *Device) transfer(b *blk.Bio) error {
	m := plain
	if b.Op == blk.Write && b.Flags&blk.FUA != 0 {
		if d.lost.Load() {
			return blk.IOErr
		}
		m = durable
	}
	err := d.moveBio(b, m)
	if m == durable && full(err) {
		return d.stillFull(b)
	}
	if m == durable && errors.Is(err, errors.ErrUnsupported) {
		if err := d.moveBio(b, plain); err != nil {
			return err
		}
		return d.flush()
	}
	if m == durable && err != nil {
		d.lost.Store(true)
	}
	return err
}

// stillFull repeats b without FUA to find out what failed for lack of space: the
// write, which then changed nothing, or the write-back, which may have lost
// earlier writes.
func (d *Device) stillFull(b *blk.Bio) error {
	err := d.moveBio(b, plain)
	if full(err) {
		return err
	}
	d.lost.Store(true)
	return blk.IOErr
}

func (d *Device) moveBio(b *blk.Bio, m mode) error {
	v := d.vecs.Get().(*vec)
	defer d.putVec(v)
	bufs := v.set(b)
	if d.misaligned(bufs) {
		return d.bounced(b, m)
	}
	return d.move(b.Op, bufs, int64(b.Sector)<<blk.SectorShift, m)
}

// move transfers bufs, continuing after short and interrupted calls.
func (d *Device) move(op blk.Op, bufs [][]byte, off int64, m mode) error {
	for len(bufs) > 0 {
		n, err := d.once(op, bufs[:min(len(bufs), maxVec)], off, m)
		switch {
		case errors.Is(err, syscall.EINTR):
			continue
		case err != nil:
			return err
		case n == 0:
			return fmt.Errorf("%s ends at byte %d: %w", d.path, off, io.ErrUnexpectedEOF)
		}
		bufs, off = advance(bufs, n), off+int64(n)
	}
	return nil
}

// bounced performs b through an aligned buffer.
func (d *Device) bounced(b *blk.Bio, m mode) error {
	buf := d.bounce.Get().(*[]byte)
	defer d.bounce.Put(buf)
	var rest, part blk.Bio
	for rest.CloneFrom(b); rest.Sectors > 0; rest.Advance(part.Sectors) {
		part.CloneFrom(&rest)
		part.Sectors = min(rest.Sectors, bounceSize/blk.SectorSize)
		if err := d.bounceOne(&part, (*buf)[:part.Bytes()], m); err != nil {
			return err
		}
	}
	return nil
}

func (d *Device) bounceOne(b *blk.Bio, p []byte, m mode) error {
	if b.Op == blk.Write {
		b.CopyOut(p)
	}
	err := d.move(b.Op, [][]byte{p}, int64(b.Sector)<<blk.SectorShift, m)
	if err == nil && b.Op == blk.Read {
		b.CopyIn(p)
	}
	return err
}

// zero makes a range read as zeroes.
func (d *Device) zero(b *blk.Bio) error {
	if b.Sectors == 0 {
		return nil
	}
	off, n := span(b)
	err := retry(func() error { return d.f.zero(off, n, b.Flags&blk.NoUnmap == 0) })
	if errors.Is(err, errors.ErrUnsupported) && b.Flags&blk.FastZero == 0 {
		err = d.writeZeroes(off, n)
	}
	if err == nil && b.Flags&blk.FUA != 0 {
		err = d.flush()
	}
	return err
}

func (d *Device) writeZeroes(off, n int64) error {
	p := aligned(int(min(n, zeroSize)), d.align)
	for n > 0 {
		k := min(n, int64(len(p)))
		if err := d.move(blk.Write, [][]byte{p[:k]}, off, plain); err != nil {
			return err
		}
		off, n = off+k, n-k
	}
	return nil
}

// retry repeats a call that a signal interrupts.
func retry(call func() error) error {
	for {
		if err := call(); !errors.Is(err, syscall.EINTR) {
			return err
		}
	}
}
