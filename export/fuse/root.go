//go:build linux

package fuse

import (
	"hash/fnv"
	"os"
	"sync"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"udm/blk"
	"udm/env"
	"udm/export"
)

// root is the directory. It tracks what the kernel knows: names that were looked up,
// open files, and the requests in flight.
type root struct {
	fuse.RawFileSystem // refuses the rest
	env                env.Env
	exports            export.Exports
	changed            env.Wait // woken when requests or open shrinks and when over is set

	mu       sync.Mutex
	requests int                        // guarded by mu; number of requests that use an open file now
	open     map[*file]bool             // guarded by mu; false: the file is being released
	handles  map[uint64]*file           // guarded by mu; by the numbers that the kernel uses
	last     uint64                     // guarded by mu; the highest number so far
	known    map[uint64]*node           // guarded by mu; by inode
	lists    map[uint64][]fuse.DirEntry // guarded by mu; of open directories
	over     bool                       // guarded by mu; further requests are refused
}

// node is a file that the kernel has looked up. Each open looks up its export by name
// again.
type node struct {
	name    string
	lookups uint64 // that the kernel has not forgotten
}

func newRoot(e env.Env, x export.Exports) *root {
	return &root{RawFileSystem: fuse.NewDefaultRawFileSystem(), env: e, exports: x, changed: e.NewWait(),
		open: make(map[*file]bool), handles: make(map[uint64]*file), known: make(map[uint64]*node),
		lists: make(map[uint64][]fuse.DirEntry)}
}

// enter admits a request unless the server has ended.
func (r *root) enter() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.over {
		r.requests++
	}
	return !r.over
}

func (r *root) leave() {
	r.mu.Lock()
	r.requests--
	last := r.over && r.requests == 0
	r.mu.Unlock()
	if last {
		r.changed.Wake()
	}
}

// add registers an open file unless the server has ended.
func (r *root) add(f *file) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.over {
		r.last++
		f.handle = r.last
		r.open[f], r.handles[f.handle] = true, f
	}
	return !r.over
}

// file returns the open file of a request.
func (r *root) file(handle uint64) *file {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.handles[handle]
}

// drop releases an open file, once.
func (r *root) drop(f *file) {
	r.mu.Lock()
	mine := r.open[f]
	if mine {
		r.open[f] = false
		delete(r.handles, f.handle)
	}
	r.mu.Unlock()
	if !mine {
		return
	}
	f.gate.Leave()
	f.export.Done()
	r.mu.Lock()
	delete(r.open, f)
	r.mu.Unlock()
	r.changed.Wake()
}

// close refuses further requests, waits for those in flight, and releases all
// open files.
func (r *root) close() {
	r.mu.Lock()
	r.over = true
	r.mu.Unlock()
	r.changed.Wake()
	r.changed.Until(func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		return r.requests == 0
	})
	for _, f := range r.files() {
		r.drop(f)
	}
	r.changed.Until(func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		return len(r.open) == 0
	})
}

func (r *root) files() []*file {
	r.mu.Lock()
	defer r.mu.Unlock()
	var fs []*file
	for f := range r.open {
		fs = append(fs, f)
	}
	return fs
}

func (r *root) closed(name string) {
	r.changed.Until(func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		for f := range r.open {
			if f.name == name {
				return false
			}
		}
		return true
	})
}

// find looks up an export if its name is a valid file name.
func (r *root) find(name string) (export.Info, bool) {
	if name == "" || name == "." || name == ".." {
		return export.Info{}, false
	}
	return r.exports.Find(name)
}

// ino always returns the same number for a name, since programs compare inode
// numbers.
func ino(name string) uint64 {
	h := fnv.New64a()
	h.Write([]byte(name))
	return max(h.Sum64(), 2)
}

// Lookup finds the file of an export.
func (r *root) Lookup(_ <-chan struct{}, _ *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	info, ok := r.find(name)
	if !ok {
		return fuse.ENOENT
	}
	out.NodeId, out.Attr.Ino = ino(name), ino(name)
	attr(&out.Attr, info)
	r.mu.Lock()
	defer r.mu.Unlock()
	n := r.known[out.NodeId]
	if n == nil {
		n = &node{name: name}
		r.known[out.NodeId] = n
	}
	n.lookups++
	return fuse.OK
}

// Forget undoes lookups.
func (r *root) Forget(inode, lookups uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := r.known[inode]
	if n == nil {
		return
	}
	if n.lookups -= min(n.lookups, lookups); n.lookups == 0 {
		delete(r.known, inode)
	}
}

// name is what an inode was looked up as.
func (r *root) name(inode uint64) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if n := r.known[inode]; n != nil {
		return n.name
	}
	return ""
}

// OpenDir gives the directory's list a number.
func (r *root) OpenDir(_ <-chan struct{}, _ *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.last++
	out.Fh = r.last
	return fuse.OK
}

// ReleaseDir forgets the list.
func (r *root) ReleaseDir(in *fuse.ReleaseIn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.lists, in.Fh)
}

// ReadDir lists the exports that there are when the list is begun. An entry's offset is
// its index.
func (r *root) ReadDir(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	r.mu.Lock()
	list := r.lists[in.Fh]
	r.mu.Unlock()
	if in.Offset == 0 || list == nil {
		list = r.entries()
		r.mu.Lock()
		r.lists[in.Fh] = list
		r.mu.Unlock()
	}
	for i := min(in.Offset, uint64(len(list))); i < uint64(len(list)); i++ {
		if !out.AddDirEntry(list[i]) {
			break
		}
	}
	return fuse.OK
}

func (r *root) entries() []fuse.DirEntry {
	list := []fuse.DirEntry{{Name: ".", Mode: syscall.S_IFDIR, Ino: fuse.FUSE_ROOT_ID, Off: 1}, {Name: "..", Mode: syscall.S_IFDIR, Off: 2}}
	for _, i := range r.exports.List() {
		if i.Name != "" && i.Name != "." && i.Name != ".." {
			list = append(list, fuse.DirEntry{Name: i.Name, Mode: syscall.S_IFREG, Ino: ino(i.Name), Off: uint64(len(list) + 1)})
		}
	}
	return list
}

// Unlink refuses: a file lasts as long as its device, which no rm takes away.
func (r *root) Unlink(_ <-chan struct{}, _ *fuse.InHeader, name string) fuse.Status {
	if _, ok := r.find(name); !ok {
		return fuse.ENOENT
	}
	return fuse.EPERM
}

// GetAttr returns the current size of a file. An open file returns the size of its own
// device, even if that has been renamed. The directory belongs to the server's user.
func (r *root) GetAttr(_ <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	handle := uint64(0)
	if in.Flags()&fuse.FUSE_GETATTR_FH != 0 {
		handle = in.Fh()
	}
	return r.attr(in.NodeId, handle, out)
}

func (r *root) attr(inode, handle uint64, out *fuse.AttrOut) fuse.Status {
	out.Attr.Ino = inode
	if inode == fuse.FUSE_ROOT_ID {
		out.Mode = syscall.S_IFDIR | 0o700
		out.Uid, out.Gid = uint32(os.Getuid()), uint32(os.Getgid())
		return fuse.OK
	}
	if f := r.file(handle); f != nil {
		info := f.export.Info
		info.Size = f.export.Device.Limits().Size
		attr(&out.Attr, info)
		return fuse.OK
	}
	info, ok := r.find(r.name(inode))
	if !ok {
		return fuse.Status(syscall.ENXIO)
	}
	attr(&out.Attr, info)
	return fuse.OK
}

// SetAttr changes nothing. A size other than the device's is refused, as block devices
// refuse every truncate(2).
func (r *root) SetAttr(_ <-chan struct{}, in *fuse.SetAttrIn, out *fuse.AttrOut) fuse.Status {
	handle, _ := in.GetFh()
	st := r.attr(in.NodeId, handle, out)
	if size, ok := in.GetSize(); ok && st.Ok() && size != out.Size {
		return fuse.EINVAL
	}
	return st
}

// Access is asked unless the kernel checks permissions itself.
func (r *root) Access(_ <-chan struct{}, in *fuse.AccessIn) fuse.Status {
	if in.NodeId == fuse.FUSE_ROOT_ID || in.Uid == 0 {
		return fuse.OK
	}
	info, ok := r.find(r.name(in.NodeId))
	if ok && (in.Mask&unix.X_OK != 0 || in.Mask&unix.W_OK != 0 && info.ReadOnly) {
		return fuse.EACCES
	}
	return fuse.OK
}

// StatFs reports only the block size, a file's discard granularity, and the length of
// names.
func (r *root) StatFs(_ <-chan struct{}, in *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	out.Bsize, out.Frsize, out.NameLen = pageSize, pageSize, 127
	if in.NodeId == fuse.FUSE_ROOT_ID {
		return fuse.OK
	}
	x, err := r.exports.Open(r.name(in.NodeId))
	if err != nil {
		return openErrno(err)
	}
	defer x.Done()
	if g := x.Device.Limits().DiscardGranularity; g > out.Bsize {
		out.Bsize, out.Frsize = g, g
	}
	return fuse.OK
}

// What a directory of devices does not have.

// Create implements [fuse.RawFileSystem].
func (r *root) Create(<-chan struct{}, *fuse.CreateIn, string, *fuse.CreateOut) fuse.Status {
	return fuse.EROFS
}

// Mknod implements [fuse.RawFileSystem].
func (r *root) Mknod(<-chan struct{}, *fuse.MknodIn, string, *fuse.EntryOut) fuse.Status {
	return fuse.ENOTSUP
}

// Mkdir implements [fuse.RawFileSystem].
func (r *root) Mkdir(<-chan struct{}, *fuse.MkdirIn, string, *fuse.EntryOut) fuse.Status {
	return fuse.ENOTSUP
}

// Rmdir implements [fuse.RawFileSystem].
func (r *root) Rmdir(<-chan struct{}, *fuse.InHeader, string) fuse.Status { return fuse.ENOTSUP }

// Rename implements [fuse.RawFileSystem].
func (r *root) Rename(<-chan struct{}, *fuse.RenameIn, string, string) fuse.Status {
	return fuse.ENOTSUP
}

// Link implements [fuse.RawFileSystem].
func (r *root) Link(<-chan struct{}, *fuse.LinkIn, string, *fuse.EntryOut) fuse.Status {
	return fuse.ENOTSUP
}

// Symlink implements [fuse.RawFileSystem].
func (r *root) Symlink(<-chan struct{}, *fuse.InHeader, string, string, *fuse.EntryOut) fuse.Status {
	return fuse.ENOTSUP
}

const pageSize = 4096

// attr fills in the attributes of a file.
func attr(a *fuse.Attr, i export.Info) {
	a.Mode = syscall.S_IFREG | 0o600
	if i.ReadOnly {
		a.Mode = syscall.S_IFREG | 0o400
	}
	a.Size, a.Blksize = i.Size*blk.SectorSize, pageSize
	// Programs look for holes only in files that use less space than their size,
	// and some treat a file without blocks as a single hole.
	a.Blocks = max(i.Size, 2) - 1
	a.Nlink = 1
	a.Uid, a.Gid = uint32(os.Getuid()), uint32(os.Getgid())
}
