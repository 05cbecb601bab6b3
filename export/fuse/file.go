//go:build linux

package fuse

import (
	"errors"
	"io/fs"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"

	"udm/blk"
	"udm/export"
	"udm/export/internal/gate"
)

// Open attaches to the export.
func (r *root) Open(_ <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	name := r.name(in.NodeId)
	x, err := r.exports.Open(name)
	if err != nil {
		return openErrno(err)
	}
	if x.ReadOnly && in.Flags&syscall.O_ACCMODE != syscall.O_RDONLY {
		x.Done()
		return fuse.EROFS
	}
	f := r.newFile(name, x, in.Flags&syscall.O_DSYNC != 0)
	if !r.add(f) {
		f.gate.Leave()
		x.Done()
		return fuse.Status(syscall.ENXIO)
	}
	out.Fh, out.OpenFlags = f.handle, fuse.FOPEN_DIRECT_IO|fuse.FOPEN_PARALLEL_DIRECT_WRITES
	return fuse.OK
}

func (r *root) newFile(name string, x *export.Export, sync bool) *file {
	f := &file{root: r, name: name, export: x, io: blk.NewFile(r.env, x.Device), sync: sync}
	f.join()
	return f
}

func openErrno(err error) fuse.Status {
	var errno syscall.Errno
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fuse.Status(syscall.ENXIO)
	case errors.As(err, &errno):
		return fuse.Status(errno)
	}
	return fuse.EIO
}

// file is an open file: one client of a device.
type file struct {
	root   *root
	handle uint64 // set by add
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

// use finds the open file of a request, which must call leave in the end.
func (r *root) use(handle uint64) (*file, fuse.Status) {
	if !r.enter() {
		return nil, fuse.Status(syscall.ENXIO)
	}
	f := r.file(handle)
	if f == nil {
		r.leave()
		return nil, fuse.EBADF
	}
	return f, fuse.OK
}

// Read reads up to the end of the device.
func (r *root) Read(_ <-chan struct{}, in *fuse.ReadIn, dest []byte) (fuse.ReadResult, fuse.Status) {
	f, st := r.use(in.Fh)
	if !st.Ok() {
		return nil, st
	}
	defer r.leave()
	n := f.clip(in.Offset, uint64(len(dest)))
	if n > 0 {
		if _, err := f.io.ReadAt(dest[:n], int64(in.Offset)); err != nil {
			return nil, errno(err)
		}
	}
	return fuse.ReadResultData(dest[:n]), fuse.OK
}

// Write writes up to the end of the device; beyond it returns ENOSPC.
func (r *root) Write(_ <-chan struct{}, in *fuse.WriteIn, data []byte) (uint32, fuse.Status) {
	f, st := r.use(in.Fh)
	if !st.Ok() {
		return 0, st
	}
	defer r.leave()
	n := f.clip(in.Offset, uint64(len(data)))
	if n == 0 && len(data) > 0 {
		return 0, fuse.Status(syscall.ENOSPC)
	}
	if err := f.write(data[:n], int64(in.Offset)); err != nil {
		return 0, errno(err)
	}
	if f.sync {
		return uint32(n), errno(f.io.Sync())
	}
	return uint32(n), fuse.OK
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
func (r *root) Fsync(_ <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	f, st := r.use(in.Fh)
	if !st.Ok() {
		return st
	}
	defer r.leave()
	return errno(f.io.Sync())
}

// Release closes the file and releases its export.
func (r *root) Release(_ <-chan struct{}, in *fuse.ReleaseIn) {
	if f := r.file(in.Fh); f != nil {
		r.drop(f)
	}
}

// The lseek whences for holes.
const (
	seekData = 3
	seekHole = 4
)

// Lseek finds data and holes in the allocation map.
func (r *root) Lseek(_ <-chan struct{}, in *fuse.LseekIn, out *fuse.LseekOut) (st fuse.Status) {
	f, st := r.use(in.Fh)
	if !st.Ok() {
		return st
	}
	defer r.leave()
	size := f.size()
	switch {
	case in.Offset >= size:
		return fuse.Status(syscall.ENXIO)
	case f.export.Extents != nil:
		out.Offset, st = f.seek(in.Offset, size, in.Whence == seekData)
	case in.Whence == seekData:
		out.Offset = in.Offset
	default:
		out.Offset = size
	}
	return st
}

func (f *file) seek(off, size uint64, data bool) (uint64, fuse.Status) {
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
		return 0, fuse.Status(syscall.ENXIO)
	}
	return size, 0
}

func errno(err error) fuse.Status {
	if err == nil {
		return fuse.OK
	}
	var n syscall.Errno
	if errors.As(err, &n) {
		return fuse.Status(n)
	}
	switch st := blk.StatusOf(err); st {
	case blk.ReadOnly:
		return fuse.EROFS
	case blk.Offline:
		return fuse.Status(syscall.ENXIO)
	default:
		return fuse.Status(st.Errno())
	}
}
