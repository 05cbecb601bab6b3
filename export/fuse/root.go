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

// root is the directory, and knows what is open and under way in it.
type root struct {
	fs.Inode
	env     env.Env
	exports export.Exports
	changed env.Wait // woken when requests or open become less and when it is over

	mu       sync.Mutex
	requests int            // guarded by mu; those that use an open file now
	open     map[*file]bool // guarded by mu; false: it is being let go
	over     bool           // guarded by mu; no request is let in any more
}

func newRoot(e env.Env, x export.Exports) *root {
	return &root{env: e, exports: x, changed: e.NewWait(), open: make(map[*file]bool)}
}

// enter lets a request in unless the server has ended.
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

// add counts an open file, and refuses it when the server has ended.
func (r *root) add(f *file) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.over {
		r.open[f] = true
	}
	return !r.over
}

// drop lets an open file go, once.
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
	f.export.Done()
	r.mu.Lock()
	delete(r.open, f)
	r.mu.Unlock()
	r.changed.Wake()
}

// close lets no request in any more, waits for those that are, and lets all open
// files go.
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

// find looks an export up whose name can be a file's.
func (r *root) find(name string) (export.Info, bool) {
	if name == "" || name == "." || name == ".." {
		return export.Info{}, false
	}
	return r.exports.Find(name)
}

// ino is the same number for the same name each time: programs compare them.
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

// Getattr makes the directory the server's own.
func (r *root) Getattr(_ context.Context, _ fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	out.Mode = syscall.S_IFDIR | 0o700
	out.Uid, out.Gid = uint32(os.Getuid()), uint32(os.Getgid())
	return 0
}

// Statfs has nothing to tell but the unit.
func (r *root) Statfs(_ context.Context, out *fuse.StatfsOut) syscall.Errno {
	out.Bsize, out.Frsize, out.NameLen = pageSize, pageSize, 127
	return 0
}

const pageSize = 4096

// attr fills in what stat prints about a file.
func attr(a *fuse.Attr, i export.Info) {
	a.Mode = syscall.S_IFREG | 0o600
	if i.ReadOnly {
		a.Mode = syscall.S_IFREG | 0o400
	}
	a.Size, a.Blksize = i.Size*blk.SectorSize, pageSize
	// Programs look for holes only in files that take less space than their size,
	// and some take one without blocks to be one hole.
	a.Blocks = max(i.Size, 2) - 1
	a.Nlink = 1
	a.Uid, a.Gid = uint32(os.Getuid()), uint32(os.Getgid())
}
