//go:build linux

package fuse

import (
	"context"
	"hash/fnv"
	"os"
	"sync"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"

	"udm/blk"
	"udm/env"
	"udm/export"
)

// root is the directory. It tracks the open files and the requests in flight.
type root struct {
	fs.Inode
	env     env.Env
	exports export.Exports
	changed env.Wait // woken when requests or open shrinks and when over is set

	mu       sync.Mutex
	requests int            // guarded by mu; number of requests that use an open file now
	open     map[*file]bool // guarded by mu; false: the file is being released
	over     bool           // guarded by mu; further requests are refused
}

func newRoot(e env.Env, x export.Exports) *root {
	return &root{env: e, exports: x, changed: e.NewWait(), open: make(map[*file]bool)}
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
		r.open[f] = true
	}
	return !r.over
}

// drop releases an open file, once.
func (r *root) drop(f *file) {
	r.mu.Lock()
	mine := r.open[f]
	if mine {
		r.open[f] = false
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
func (r *root) Lookup(ctx context.Context, name string, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	info, ok := r.find(name)
	if !ok {
		return nil, syscall.ENOENT
	}
	attr(&out.Attr, info)
	return r.NewInode(ctx, &node{root: r, name: name}, fs.StableAttr{Mode: syscall.S_IFREG, Ino: ino(name)}), 0
}

// Readdir lists the exports.
func (r *root) Readdir(context.Context) (fs.DirStream, syscall.Errno) {
	var list []fuse.DirEntry
	for _, i := range r.exports.List() {
		if i.Name != "" && i.Name != "." && i.Name != ".." {
			list = append(list, fuse.DirEntry{Name: i.Name, Mode: syscall.S_IFREG, Ino: ino(i.Name)})
		}
	}
	return fs.NewListDirStream(list), 0
}

// Unlink refuses: a file lasts as long as its device, which no rm takes away.
func (r *root) Unlink(_ context.Context, name string) syscall.Errno {
	if _, ok := r.find(name); !ok {
		return syscall.ENOENT
	}
	return syscall.EPERM
}

// Getattr makes the server's user the owner of the directory.
func (r *root) Getattr(_ context.Context, _ fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	out.Mode = syscall.S_IFDIR | 0o700
	out.Uid, out.Gid = uint32(os.Getuid()), uint32(os.Getgid())
	return 0
}

// Statfs reports only the block size and the length of names.
func (r *root) Statfs(_ context.Context, out *fuse.StatfsOut) syscall.Errno {
	out.Bsize, out.Frsize, out.NameLen = pageSize, pageSize, 127
	return 0
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
