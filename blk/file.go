package blk

import (
	"fmt"
	"io"
	"slices"
	"sync"

	"udm/env"
)

// File is a view of a device as bytes: an io.ReaderAt and io.WriterAt for any offset
// and length. It blocks, and is safe for concurrent use. A write that does not cover
// whole blocks reads the rest of the block first; writes that touch the same block
// take turns, so that neither overwrites the other's bytes.
//
// Lock order: mu is a leaf; no I/O runs under it.
type File struct {
	env  env.Env
	d    Device
	wait env.Wait // woken when busy shrinks

	mu   sync.Mutex
	busy []blockRange // guarded by mu; ranges being written
}

// blockRange is bytes [first, end), both at block boundaries.
type blockRange struct{ first, end uint64 }

// maxPiece bounds the bytes of one bio of a File.
const maxPiece = 1 << 20

// NewFile returns a view of d, which it does not own.
func NewFile(e env.Env, d Device) *File { return &File{env: e, d: d, wait: e.NewWait()} }

// Size returns the device's present size in bytes.
func (f *File) Size() int64 { return int64(f.d.Limits().Size << SectorShift) }

// Sync makes earlier writes durable.
func (f *File) Sync() error { return FlushDevice(f.env, f.d) }

// ReadAt implements io.ReaderAt: short reads end with io.EOF.
func (f *File) ReadAt(p []byte, off int64) (int, error) {
	l := f.d.Limits()
	n, err := f.clip(p, off, &l)
	if n == 0 {
		return 0, err
	}
	done, rerr := f.pieces(p[:n], off, &l, f.read)
	if rerr != nil {
		return done, rerr
	}
	return done, err
}

// WriteAt implements io.WriterAt. The device does not grow: data beyond its end is
// not written, and the error is io.ErrShortWrite.
func (f *File) WriteAt(p []byte, off int64) (int, error) {
	l := f.d.Limits()
	n, err := f.clip(p, off, &l)
	if n == 0 {
		return 0, shortWrite(err)
	}
	r := cover(uint64(off), uint64(n), &l)
	f.enter(r)
	defer f.leave(r)
	done, werr := f.pieces(p[:n], off, &l, f.write)
	if werr != nil {
		return done, werr
	}
	return done, shortWrite(err)
}

func shortWrite(err error) error {
	if err == io.EOF {
		return io.ErrShortWrite
	}
	return err
}

// clip returns how many bytes of p lie on the device, with io.EOF if not all do.
func (f *File) clip(p []byte, off int64, l *Limits) (int, error) {
	if off < 0 {
		return 0, fmt.Errorf("%v: negative offset %d: %w", f.d, off, Invalid)
	}
	size := l.Size << SectorShift
	if left := size - min(size, uint64(off)); left < uint64(len(p)) {
		return int(left), io.EOF
	}
	return len(p), nil
}

// cover returns the blocks that bytes [off, off+n) touch.
func cover(off, n uint64, l *Limits) blockRange {
	block := uint64(l.LogicalBlock)
	return blockRange{off - off%block, (off + n + block - 1) / block * block}
}

// enter waits until nobody else writes to blocks of r.
func (f *File) enter(r blockRange) {
	f.wait.Until(func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		for _, b := range f.busy {
			if b.first < r.end && r.first < b.end {
				return false
			}
		}
		f.busy = append(f.busy, r)
		return true
	})
}

func (f *File) leave(r blockRange) {
	f.mu.Lock()
	i := slices.Index(f.busy, r)
	f.busy = slices.Delete(f.busy, i, i+1)
	f.mu.Unlock()
	f.wait.Wake()
}

// pieces cuts p at the boundaries of whole blocks and at the maximum length of a bio,
// and calls do for each piece; its bool says whether the piece covers whole blocks.
func (f *File) pieces(p []byte, off int64, l *Limits, do func([]byte, uint64, *Limits, bool) error) (int, error) {
	block, longest := uint64(l.LogicalBlock), uint64(maxPiece)
	if l.MaxSectors != 0 {
		longest = min(longest, uint64(l.MaxSectors)<<SectorShift)
	}
	longest = max(block, longest-longest%block)
	done := 0
	for done < len(p) {
		at, n := uint64(off)+uint64(done), uint64(len(p)-done)
		in := at % block
		whole := in == 0 && n >= block
		if whole {
			n = min(longest, n-n%block)
		} else {
			n = min(n, block-in)
		}
		if err := do(p[done:done+int(n)], at, l, whole); err != nil {
			return done, fmt.Errorf("%v: byte %d: %w", f.d, at, err)
		}
		done += int(n)
	}
	return done, nil
}

func (f *File) read(p []byte, at uint64, l *Limits, whole bool) error {
	if whole {
		return ReadSectors(f.env, f.d, p, at>>SectorShift)
	}
	buf, r, err := f.around(at, l)
	if err == nil {
		copy(p, buf[at-r.first:])
	}
	return err
}

func (f *File) write(p []byte, at uint64, l *Limits, whole bool) error {
	if whole {
		return WriteSectors(f.env, f.d, p, at>>SectorShift, 0)
	}
	buf, r, err := f.around(at, l)
	if err != nil {
		return err
	}
	copy(buf[at-r.first:], p)
	return WriteSectors(f.env, f.d, buf, r.first>>SectorShift, 0)
}

// around reads the block that contains byte at.
func (f *File) around(at uint64, l *Limits) ([]byte, blockRange, error) {
	r := cover(at, 1, l)
	buf := make([]byte, l.LogicalBlock)
	return buf, r, ReadSectors(f.env, f.d, buf, r.first>>SectorShift)
}
