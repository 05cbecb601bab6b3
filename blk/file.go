package blk

import (
	"errors"
	"io"
	"sync"

	"udm/env"
)

// File is a device as programs like it: bytes at any offset. What does not begin
// and end at a logical block is read, changed and written back; a File locks
// such writes against one another, but not against other users of the device.
// It is an io.ReaderAt and io.WriterAt, safe for concurrent use.
type File struct {
	env   env.Env
	dev   Device
	block uint64 // bytes in a logical block

	// edges is held for writing by writes of parts of blocks, while they read,
	// change and write, and for reading by writes of whole blocks.
	edges sync.RWMutex
}

// NewFile returns a view of d, which it does not own.
func NewFile(e env.Env, d Device) *File {
	return &File{env: e, dev: d, block: uint64(max(d.Limits().LogicalBlock, SectorSize))}
}

// Size is the device's size in bytes, as it is now.
func (f *File) Size() int64 { return int64(f.dev.Limits().Size * SectorSize) }

// errOffset is what os.File says to a negative offset.
var errOffset = errors.New("negative offset")

// ReadAt reads len(p) bytes from off on; io.EOF at the end of the device.
func (f *File) ReadAt(p []byte, off int64) (int, error) {
	n, err := f.within(len(p), off, io.EOF)
	if n == 0 {
		return 0, err
	}
	if e := f.read(p[:n], uint64(off)); e != nil {
		return 0, e
	}
	return n, err
}

// WriteAt writes len(p) bytes from off on. What does not fit before the end of
// the device is not written: NoSpace.
func (f *File) WriteAt(p []byte, off int64) (int, error) {
	n, err := f.within(len(p), off, NoSpace)
	if n == 0 {
		return 0, err
	}
	if e := f.write(p[:n], uint64(off)); e != nil {
		return 0, e
	}
	return n, err
}

// Sync makes all writes that have returned durable.
func (f *File) Sync() error { return FlushDevice(f.env, f.dev) }

// within cuts a length at the end of the device and says past what it is cut.
func (f *File) within(n int, off int64, past error) (int, error) {
	if off < 0 {
		return 0, errOffset
	}
	left := max(0, f.Size()-off)
	if int64(n) > left {
		return int(left), past
	}
	return n, nil
}

// widen is the smallest range of whole blocks around n bytes at off.
func (f *File) widen(off, n uint64) (start, bytes uint64) {
	start = off / f.block * f.block
	return start, (off+n+f.block-1)/f.block*f.block - start
}

func (f *File) read(p []byte, off uint64) error {
	start, n := f.widen(off, uint64(len(p)))
	if start == off && n == uint64(len(p)) {
		return ReadSectors(f.env, f.dev, p, off/SectorSize)
	}
	whole := make([]byte, n)
	err := ReadSectors(f.env, f.dev, whole, start/SectorSize)
	copy(p, whole[off-start:])
	return err
}

func (f *File) write(p []byte, off uint64) error {
	start, n := f.widen(off, uint64(len(p)))
	if start == off && n == uint64(len(p)) {
		f.edges.RLock()
		defer f.edges.RUnlock()
		return WriteSectors(f.env, f.dev, p, off/SectorSize, 0)
	}
	f.edges.Lock()
	defer f.edges.Unlock()
	whole := make([]byte, n)
	if err := f.readEdges(whole, start); err != nil {
		return err
	}
	copy(whole[off-start:], p)
	return WriteSectors(f.env, f.dev, whole, start/SectorSize, 0)
}

// readEdges fills the first and the last block of whole.
func (f *File) readEdges(whole []byte, start uint64) error {
	last := uint64(len(whole)) - f.block
	if err := ReadSectors(f.env, f.dev, whole[:f.block], start/SectorSize); err != nil || last == 0 {
		return err
	}
	return ReadSectors(f.env, f.dev, whole[last:], (start+last)/SectorSize)
}
