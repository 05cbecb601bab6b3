//go:build linux

package fuse

import (
	"bytes"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"

	"udm/blk"
)

// The modes of fallocate.
const (
	keepSize  = 0x01
	punchHole = 0x02
	zeroRange = 0x10
)

// Fallocate punches holes and zeroes ranges.
func (r *root) Fallocate(_ <-chan struct{}, in *fuse.FallocateIn) fuse.Status {
	f, st := r.use(in.Fh)
	if !st.Ok() {
		return st
	}
	defer r.leave()
	return f.allocate(in.Offset, in.Length, in.Mode)
}

func (f *file) allocate(off, size uint64, mode uint32) fuse.Status {
	end := f.size()
	if mode&punchHole == 0 && mode&keepSize == 0 && (off > end || size > end-off) {
		return fuse.Status(syscall.ENOSPC)
	}
	n := f.clip(off, size)
	switch {
	case f.export.ReadOnly:
		return fuse.EROFS
	case n == 0 || mode&^keepSize == 0:
		return fuse.OK
	case mode&^keepSize == punchHole && !f.unmaps():
		return fuse.ENOTSUP
	case mode&^keepSize == punchHole:
		return errno(f.zero(off, n, true))
	case mode&^keepSize == zeroRange:
		return errno(f.zero(off, n, false))
	}
	return fuse.ENOTSUP
}

// zero makes a range of bytes read as zeroes. It uses the device's own ops for
// whole blocks and writes the ends.
func (f *file) zero(off, n uint64, unmap bool) error {
	defer f.enter(off, n)()
	block := uint64(f.export.Device.Limits().LogicalBlock)
	first, last := (off+block-1)/block*block, (off+n)/block*block
	if first >= last {
		return f.writeZeroes(off, n)
	}
	if err := f.writeZeroes(off, first-off); err != nil {
		return err
	}
	if err := f.writeZeroes(last, off+n-last); err != nil {
		return err
	}
	sector, sectors := first/blk.SectorSize, (last-first)/blk.SectorSize
	if !unmap {
		return f.do(blk.WriteZeroes, blk.NoUnmap, sector, sectors)
	}
	return f.unmap(sector, sectors)
}

// unmap frees space and leaves zeroes. A discard does not guarantee what is read
// afterwards. If the device has no write-zeroes, unmap therefore discards and
// then zeroes everything that does not read as zeroes.
func (f *file) unmap(sector, sectors uint64) error {
	if f.export.Device.Native().MaxWriteZeroes > 0 {
		return f.do(blk.WriteZeroes, 0, sector, sectors)
	}
	if err := f.do(blk.Discard, 0, sector, sectors); err != nil {
		return err
	}
	return f.scrub(sector, sectors)
}

// unmaps reports whether the device can free space. If it cannot, punching a hole
// fails instead of writing zeroes, since trimming a file system must not write
// all its free space.
func (f *file) unmaps() bool {
	l := f.export.Device.Native()
	return l.MaxWriteZeroes > 0 || l.MaxDiscard > 0
}

// scrub zeroes the remaining data in a discarded range. It skips the holes of the
// allocation map, if there is one.
func (f *file) scrub(sector, sectors uint64) error {
	const step = 256 << 10 / blk.SectorSize
	buf := make([]byte, step*blk.SectorSize)
	for end := sector + sectors; sector < end; {
		e, err := f.extent(sector, min(step, end-sector))
		if err == nil && e.Data {
			err = f.clearRemains(buf[:e.Sectors*blk.SectorSize], sector)
		}
		if err != nil {
			return err
		}
		sector += e.Sectors
	}
	return nil
}

// extent returns the extent at sector, limited to the given range.
func (f *file) extent(sector, sectors uint64) (blk.Extent, error) {
	if f.export.Extents == nil {
		return blk.Extent{Sector: sector, Sectors: sectors, Data: true}, nil
	}
	es, err := f.export.Extents(sector, sectors)
	if err != nil {
		return blk.Extent{}, err
	}
	return es[0], nil
}

// clearRemains zeroes the nonzero parts of len(p) bytes from sector on, in units
// of 4 KiB, so that it allocates no more space than needed.
func (f *file) clearRemains(p []byte, sector uint64) error {
	off := int64(sector * blk.SectorSize)
	if _, err := f.io.ReadAt(p, off); err != nil {
		return err
	}
	for len(p) > 0 {
		n := min(4096, len(p))
		if !bytes.Equal(p[:n], zeroes[:n]) {
			if _, err := f.io.WriteAt(zeroes[:n], off); err != nil {
				return err
			}
		}
		p, off = p[n:], off+int64(n)
	}
	return nil
}

var zeroes [4096]byte

func (f *file) do(op blk.Op, flags blk.Flags, sector, sectors uint64) error {
	return blk.Do(f.root.env, f.export.Device, &blk.Bio{Op: op, Flags: flags, Sector: sector, Sectors: sectors}).Err()
}

// writeZeroes writes less than a block of zeroes.
func (f *file) writeZeroes(off, n uint64) error {
	if n == 0 {
		return nil
	}
	_, err := f.io.WriteAt(make([]byte, n), int64(off))
	return err
}
