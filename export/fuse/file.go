//go:build linux

package fuse

import (
	"context"
	"errors"
	iofs "io/fs"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"

	"udm/blk"
	"udm/export"
	"udm/export/internal/gate"
)

// node is a file. Each open looks up its export by name again.
type node struct {
	fs.Inode
	root *root
	name string
}

// Getattr returns the current size. An open file returns the size of its own
// device, even if that has been renamed.
func (n *node) Getattr(_ context.Context, h fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	if f, ok := h.(*file); ok {
		info := f.export.Info
		info.Size = f.export.Device.Limits().Size
		attr(&out.Attr, info)
		return 0
	}
	info, ok := n.root.find(n.name)
	if !ok {
		return syscall.ENXIO
	}
	attr(&out.Attr, info)
	return 0
}

// Setattr changes nothing. A size other than the device's is refused, as block devices
// refuse every truncate(2).
func (n *node) Setattr(ctx context.Context, f fs.FileHandle, in *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	errno := n.Getattr(ctx, f, out)
	if size, ok := in.GetSize(); ok && errno == 0 && size != out.Size {
		return syscall.EINVAL
	}
	return errno
}

// Statfs reports the discard granularity as the block size.
func (n *node) Statfs(ctx context.Context, out *fuse.StatfsOut) syscall.Errno {
	errno := n.root.Statfs(ctx, out)
	x, err := n.root.exports.Open(n.name)
	if err != nil {
		return openErrno(err)
	}
	defer x.Done()
	if g := x.Device.Limits().DiscardGranularity; g > out.Bsize {
		out.Bsize, out.Frsize = g, g
	}
	return errno
}

// Open attaches to the export.
func (n *node) Open(_ context.Context, flags uint32) (fs.FileHandle, uint32, syscall.Errno) {
	x, err := n.root.exports.Open(n.name)
	if err != nil {
		return nil, 0, openErrno(err)
	}
	if x.ReadOnly && flags&syscall.O_ACCMODE != syscall.O_RDONLY {
		x.Done()
		return nil, 0, syscall.EROFS
	}
	f := &file{root: n.root, name: n.name, export: x, io: blk.NewFile(n.root.env, x.Device),
		sync: flags&syscall.O_DSYNC != 0}
	f.join()
	if !n.root.add(f) {
		f.gate.Leave()
		x.Done()
		return nil, 0, syscall.ENXIO
	}
	return f, fuse.FOPEN_DIRECT_IO | fuse.FOPEN_PARALLEL_DIRECT_WRITES, 0
}

func openErrno(err error) syscall.Errno {
	var errno syscall.Errno
	switch {
	case errors.Is(err, iofs.ErrNotExist):
		return syscall.ENXIO
	case errors.As(err, &errno):
		return errno
	}
	return syscall.EIO
}

// file is an open file: one client of a device.
type file struct {
	root   *root
	name   string // the name it was opened by
	export *export.Export
	io     *blk.File
	gate   gate.Client
	sync   bool // opened with O_SYNC or O_DSYNC; FUSE leaves the flush to the server
}

// gateKey identifies a device that its export does not identify: by directory and name.
type gateKey struct {
	root *root
	name string
}

func (f *file) join() {
	if key := f.export.Same; key != nil {
		f.gate.Join(key)
		return
	}
	f.gate.Join(gateKey{f.root, f.name})
}

func (f *file) size() uint64 { return f.export.Device.Limits().Size * blk.SectorSize }

// Read reads up to the end of the device.
func (f *file) Read(_ context.Context, dest []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	if !f.root.enter() {
		return nil, syscall.ENXIO
	}
	defer f.root.leave()
	n := f.clip(uint64(off), uint64(len(dest)))
	if n == 0 {
		return fuse.ReadResultData(nil), 0
	}
	if _, err := f.io.ReadAt(dest[:n], off); err != nil {
		return nil, errno(err)
	}
	return fuse.ReadResultData(dest[:n]), 0
}

// Write writes up to the end of the device; beyond it returns ENOSPC.
func (f *file) Write(_ context.Context, data []byte, off int64) (uint32, syscall.Errno) {
	if !f.root.enter() {
		return 0, syscall.ENXIO
	}
	defer f.root.leave()
	n := f.clip(uint64(off), uint64(len(data)))
	if n == 0 && len(data) > 0 {
		return 0, syscall.ENOSPC
	}
	if err := f.write(data[:n], off); err != nil {
		return 0, errno(err)
	}
	if f.sync {
		return uint32(n), errno(f.io.Sync())
	}
	return uint32(n), 0
}

func (f *file) write(p []byte, off int64) error {
	defer f.enter(uint64(off), uint64(len(p)))()
	_, err := f.io.WriteAt(p, off)
	return err
}

// enter enters the device's gate for a write, alone if that covers only part of a block,
// and returns how to leave it.
func (f *file) enter(off, n uint64) (leave func()) {
	if (off|n)%uint64(f.export.Device.Limits().LogicalBlock) == 0 {
		f.gate.Enter()
		return f.gate.Exit
	}
	f.gate.Close()
	return f.gate.Open
}

// clip returns how many of n bytes at off lie within the device.
func (f *file) clip(off, n uint64) uint64 {
	size := f.size()
	return min(n, size-min(off, size))
}

// Fsync makes earlier writes durable.
func (f *file) Fsync(context.Context, uint32) syscall.Errno {
	if !f.root.enter() {
		return syscall.ENXIO
	}
	defer f.root.leave()
	return errno(f.io.Sync())
}

// Flush is called at each close. It does nothing: only fsync makes data durable.
func (f *file) Flush(context.Context) syscall.Errno { return 0 }

// Release closes the file and releases its export.
func (f *file) Release(context.Context) syscall.Errno {
	f.root.drop(f)
	return 0
}

// The lseek whences for holes.
const (
	seekData = 3
	seekHole = 4
)

// Lseek finds data and holes in the allocation map.
func (f *file) Lseek(_ context.Context, off uint64, whence uint32) (uint64, syscall.Errno) {
	if !f.root.enter() {
		return 0, syscall.ENXIO
	}
	defer f.root.leave()
	size := f.size()
	if off >= size {
		return 0, syscall.ENXIO
	}
	if f.export.Extents == nil {
		if whence == seekData {
			return off, 0
		}
		return size, 0
	}
	return f.seek(off, size, whence == seekData)
}

func (f *file) seek(off, size uint64, data bool) (uint64, syscall.Errno) {
	for s := off / blk.SectorSize; s < size/blk.SectorSize; {
		es, err := f.export.Extents(s, size/blk.SectorSize-s)
		if err != nil {
			return 0, errno(err)
		}
		for _, e := range es {
			if e.Data == data {
				return max(off, e.Sector*blk.SectorSize), 0
			}
			s = e.Sector + e.Sectors
		}
	}
	if data {
		return 0, syscall.ENXIO
	}
	return size, 0
}

func errno(err error) syscall.Errno {
	if err == nil {
		return 0
	}
	var n syscall.Errno
	if errors.As(err, &n) {
		return n
	}
	switch st := blk.StatusOf(err); st {
	case blk.ReadOnly:
		return syscall.EROFS
	case blk.Offline:
		return syscall.ENXIO
	default:
		return st.Errno()
	}
}
